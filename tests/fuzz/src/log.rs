//! What a task printed: shown without what a terminal would obey, and cut to valid text.

use consign::{ops_repo::RemoteUrl, page::Printable, track::log::excerpt};

fn shown(pieces: &[&[u8]]) -> String {
    let mut printable = Printable::default();
    pieces.iter().map(|piece| printable.push(piece)).collect()
}

/// The first byte says where the log is cut in two.
pub(crate) fn check(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = shown(&[bytes]);
    let (one, two) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(shown(&[one, two]), whole);
    assert!(!whole.chars().any(|letter| letter.is_control() && letter != '\t' && letter != '\n'));
    assert!(whole.len() <= 3 * bytes.len());
    assert_eq!(shown(&[whole.as_bytes()]), whole, "what is shown once is shown so again");

    for truncated in [false, true] {
        let cut = excerpt(bytes, truncated);
        assert!(cut.text.len() <= 3 * bytes.len());
        assert_eq!(excerpt(cut.text.as_bytes(), false).text, cut.text);
    }
    redacted(&String::from_utf8_lossy(bytes));
}

/// The credential in the address of a remote is shown nowhere.
fn redacted(password: &str) {
    const MARK: &str = "tell-nobody";
    let escaped: String = password.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let address = format!("https://robot:{MARK}{escaped}@git.example/ops.git");
    let remote = RemoteUrl::parse(&address).expect("an address");
    assert!(!format!("{remote} {remote:?}").contains(MARK));
    // Anything at all in a place where an address stands.
    if let Ok(remote) = RemoteUrl::parse(password) {
        assert!(!remote.to_string().is_empty());
    }
    if let Err(error) = RemoteUrl::parse(&format!("ftp://robot:{MARK}{password}@git.example/")) {
        let head =
            password.split(|letter: char| letter == '/' || letter == '\'' || letter.is_whitespace()).next();
        assert!(head != Some(password) || !error.to_string().contains(MARK), "{error}");
    }
}
