//! Failures of the Hub and its cache.

use super::sentence;
use crate::failure::{Exit, Failure};
use gq_hub::{Access, HubError};

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        use HubError as E;
        let message = sentence(&error);
        let usage = |code| Failure::new(Exit::Usage, code, &message);
        let input = |code| Failure::new(Exit::Input, code, &message);
        let environment = |code| Failure::new(Exit::Environment, code, &message);
        match &error {
            E::BadRepoId { id } => usage("hub.bad_name").at(id).limit("ORG/NAME"),
            E::BadRevision { revision } => usage("hub.bad_revision").at(revision),
            E::NotFound { text } => input("path.missing").at(text),
            E::NotAFile { path } => input("path.not_a_file").at(path.display()),
            E::UnsafePath { path } => input("hub.unsafe_path").at(path),
            E::Offline { what } => environment("hub.offline").at(what).limit("no network"),
            E::Incomplete { repo, missing, wanted } => {
                let found = wanted.saturating_sub(missing.len());
                environment("hub.incomplete").at(repo).limit(format!("{wanted} files")).actual(found)
            }
            E::RepoNotFound { repo, authenticated, .. } => input(match authenticated {
                true => "hub.repository_missing",
                false => "hub.repository_missing_or_private",
            })
            .at(repo),
            E::RevisionNotFound { repo, revision } => input("hub.revision_missing").at(repo).limit(revision),
            E::FileNotFound { repo, path } => input("hub.file_missing").at(repo).limit(path),
            E::NothingSelected { repo, files } => usage("hub.nothing_selected")
                .at(repo)
                .limit("at least 1")
                .actual(format!("0 of {files} files")),
            E::Gated { repo, authenticated, .. } => environment(match authenticated {
                true => "hub.gated",
                false => "hub.gated_no_token",
            })
            .at(repo),
            E::Unauthorized { .. } => environment("hub.token_refused").at("HF_TOKEN"),
            E::Forbidden { url, access, .. } => environment(match access {
                Access::Write => "hub.forbidden",
                Access::Read { authenticated: true } => "hub.forbidden_read",
                Access::Read { authenticated: false } => "hub.forbidden_read_no_token",
                Access::Storage => "hub.forbidden_storage",
            })
            .at(url)
            .actual(403),
            E::TooSlow { url, bytes, time, .. } => {
                environment("hub.too_slow").at(url).actual(format!("{bytes} bytes in {} s", time.as_secs()))
            }
            E::TimeLimit { url, limit } => {
                environment("hub.too_slow").at(url).limit(format!("{} s", limit.as_secs()))
            }
            E::PlantedLink { path } => {
                environment("hub.planted_link").at(path.display()).limit("a folder").actual("a link")
            }
            E::RateLimited { url, .. } => environment("hub.rate_limited").at(url),
            E::Status { url, status, .. } => environment("hub.status").at(url).actual(status),
            E::Transport { url, .. } => environment("hub.no_connection").at(url),
            E::CutShort { url, got, expected, .. } => {
                environment("hub.cut_short").at(url).limit(expected).actual(got)
            }
            E::WrongRange { url, expected, actual } => {
                environment("hub.wrong_range").at(url).limit(expected).actual(actual)
            }
            E::BadRedirect { url, location } => environment("hub.redirect").at(url).actual(location),
            E::BadAnswer { url, field } => environment("hub.answer").at(url).actual(field),
            E::HashMismatch { path, expected, actual, .. } => {
                input("hub.hash_mismatch").at(path).limit(expected).actual(actual)
            }
            E::DiskFull { path, needed, available } => {
                environment("disk.full").at(path.display()).limit(available).actual(needed)
            }
            E::Locked { path, .. } => environment("hub.locked").at(path.display()),
            E::Cancelled => environment("cancelled"),
            E::Io { path, source, .. } => {
                let missing = source.kind() == std::io::ErrorKind::NotFound;
                if missing { input("path.missing") } else { environment("path.io") }.at(path.display())
            }
            E::ObjectRefused { path, code, .. } => environment("hub.object_refused").at(path).actual(code),
            E::SourceChanged { path } => environment("hub.source_changed").at(path.display()),
            _ => environment("hub"),
        }
    }
}
