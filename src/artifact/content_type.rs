//! The media type of a kept file, as its name suggests: nothing of its content is trusted.

/// The media type by the file name's ending; what is not known is plain bytes.
#[must_use]
pub fn of(name: &str) -> &'static str {
    let ending = name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, ending)| ending);
    match ending.unwrap_or_default().to_ascii_lowercase().as_str() {
        "txt" | "log" | "md" | "toml" | "yaml" | "yml" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "xml" => "application/xml",
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "zip" => "application/zip",
        "tar" => "application/x-tar",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides_and_nothing_else() {
        for (name, content_type) in [
            ("report.json", "application/json"),
            ("a.b/PICTURE.PNG", "image/png"),
            ("a.json/model", "application/octet-stream"),
            ("weights.safetensors", "application/octet-stream"),
            ("json", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(of(name), content_type, "{name}");
        }
    }
}
