//! Versions of servers.

/// Major, minor, patch.
pub(crate) type Version = (u32, u32, u32);

/// Reads a version as servers print it, such as `1.11.3`, `v1.21.2` or `1.10.2+ent`.
pub(crate) fn parse(text: &str) -> Option<Version> {
    let plain = text.trim().trim_start_matches('v');
    let mut numbers = plain.split(['-', '+', ' ']).next()?.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_print_them() {
        assert_eq!(parse("1.11.3"), Some((1, 11, 3)));
        assert_eq!(parse("v2.0.0-beta.1"), Some((2, 0, 0)));
        assert_eq!(parse("1.10.2+ent"), Some((1, 10, 2)));
        assert_eq!(parse("1.10"), None);
        assert_eq!(parse(""), None);
    }
}
