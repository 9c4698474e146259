//! Addresses: parts of them written, compared and joined.

use ureq::http::Uri;

/// Signed addresses carry their signature in the query: it is left out of messages.
pub(crate) fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or(url).to_owned()
}

/// Scheme, host and port.
pub(crate) fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

pub(crate) fn same_origin(a: &str, b: &str) -> bool {
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// `location` as seen from `base`; `None` when it is not an http address or path.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse::<Uri>().ok().map(|_| location.to_owned());
    }
    let base: Uri = base.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let next = match location.strip_prefix("//") {
        Some(rest) => format!("{scheme}://{rest}"),
        None if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        None => return None,
    };
    next.parse::<Uri>().ok().map(|_| next)
}

/// The address that a `Link` header calls next.
pub(crate) fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (address, relation) = part.split_once(';')?;
        let address = address.trim().strip_prefix('<')?.strip_suffix('>')?;
        relation.contains("rel=\"next\"").then(|| address.to_owned())
    })
}

/// A revision as one path segment of an address.
pub(crate) fn encode_revision(revision: &str) -> String {
    encode(revision, "")
}

/// A path as segments of an address.
pub(crate) fn encode_path(path: &str) -> String {
    encode(path, "/")
}

fn encode(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_joined_addresses() {
        assert!(same_origin("https://h/a", "https://H:443/b"));
        assert!(!same_origin("https://h/a", "http://h/a") && !same_origin("http://h:1/", "http://h:2/"));
        assert!(!same_origin("http://hub.example.evil/", "http://hub.example/"));
        assert_eq!(join("http://h:1/a/b?x", "/c?y").as_deref(), Some("http://h:1/c?y"));
        assert_eq!(join("http://h/a", "https://cdn/x").as_deref(), Some("https://cdn/x"));
        assert_eq!(join("http://h/a", "//cdn/x").as_deref(), Some("http://cdn/x"));
        assert_eq!(join("http://h/a", "file:///etc/passwd"), None);
        assert_eq!(join("http://h/a", ""), None);
    }

    #[test]
    fn addresses_are_percent_encoded() {
        assert_eq!(encode_path("a b/c#d?.json"), "a%20b/c%23d%3F.json");
        assert_eq!(encode_revision("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
