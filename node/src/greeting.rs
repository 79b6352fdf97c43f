//! What an operator sees who starts a node to try it out.

use std::net::SocketAddr;

use crate::config::Config;
use crate::ports::Places;
use crate::tls::development::AUTHORITY;

/// Fewer than 15 lines: where it listens, how to make an account, whom to trust, and a client to paste.
pub fn text(config: &Config, places: &Places) -> String {
    let Places { c2s, c2s_tls, s2s, s2s_tls, http, .. } = places;
    let list = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let domain = config.domains.first().map_or("localhost", |d| d.name.as_str());
    let authority = std::path::absolute(config.data_dir.join("tls").join(AUTHORITY)).unwrap_or_default();
    let port = c2s.first().map_or(5222, SocketAddr::port);
    let base = http.first().map(|a| format!("http://{a}")).unwrap_or_default();
    format!(
        "\nRookery {} serves {domain} for development, on this machine only.\n\
         \x20 clients      {} (STARTTLS), {} (direct TLS)\n\
         \x20 servers      {} (STARTTLS), {} (direct TLS), of other domains on this machine\n\
         \x20 web          {base}/ (health and metrics)\n\
         \x20 data         {}\n\
         \x20 authority    {}\n\
         Create accounts in another terminal, in this folder, or from a client (registration is open):\n\
         \x20 cargo run --release -- user add romeo@{domain}\n\
         Then connect a client, for example Profanity (the certificate is signed by the node itself). Paste:\n\
         \x20 /connect romeo@{domain} server 127.0.0.1 port {port} tls trust\n\
         Ctrl-C stops the node.\n",
        rookery_ops::VERSION,
        list(c2s),
        list(c2s_tls),
        list(s2s),
        list(s2s_tls),
        std::path::absolute(&config.data_dir).unwrap_or_default().display(),
        authority.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_and_says_what_matters() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (c2s, c2s_tls, http) = (vec![at(5222)], vec![at(5223)], vec![at(5280)]);
        let places = Places { c2s, c2s_tls, http, s2s: vec![at(5269)], ..Places::default() };
        let text = text(&Config::development(), &places);
        assert!(text.lines().count() < 15, "{text}");
        for part in [
            "127.0.0.1:5222",
            "127.0.0.1:5223",
            "127.0.0.1:5269",
            "http://127.0.0.1:5280/",
            "user add romeo@localhost",
            "ca.pem",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
