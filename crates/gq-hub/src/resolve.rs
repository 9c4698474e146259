//! What a user's SRC stands for: a folder, a file, a cached repository, or one to be fetched. Offline first.

use crate::repo::RepoRef;
use crate::tree::RemoteFile;
use crate::{Globs, Hub, HubError, Progress, PullOptions, Snapshot};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Whether the network may be used when the cache does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Fetch what is missing.
    Allowed,
    /// Fail instead.
    Never,
}

/// Something on this disk that a command can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The folder or file.
    pub path: PathBuf,
    /// The repository and commit it came from, when it came from one.
    pub snapshot: Option<Snapshot>,
}

/// Where a SRC was found without touching the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// Here, and complete as far as can be told.
    Here(Source),
    /// In the cache, but these files of it are missing.
    Partly {
        /// What there is.
        snapshot: Snapshot,
        /// Paths of what there is not.
        missing: Vec<String>,
        /// How many files it should have.
        wanted: usize,
        /// As parsed.
        reference: RepoRef,
    },
    /// Not here; could be fetched.
    Remote(RepoRef),
}

impl Hub {
    /// Finds `text` on this disk: a path first, then the cache. Never touches the network.
    ///
    /// # Errors
    /// [`HubError::NotFound`] when it is neither a path nor a possible repository name.
    pub fn locate(&self, text: &str) -> Result<Located, HubError> {
        if !text.starts_with("hf://") {
            let path = Path::new(text);
            match std::fs::metadata(path) {
                Ok(m) if m.is_dir() || m.is_file() => {
                    return Ok(Located::Here(Source { path: path.to_owned(), snapshot: None }));
                }
                Ok(_) => return Err(HubError::NotAFile { path: path.to_owned() }),
                Err(_) if looks_like_a_path(text) => {
                    return Err(HubError::NotFound { text: text.to_owned() });
                }
                Err(_) => {}
            }
        }
        let reference = RepoRef::parse(text).map_err(|error| match error {
            HubError::BadRepoId { .. } if !text.starts_with("hf://") => {
                HubError::NotFound { text: text.to_owned() }
            }
            other => other,
        })?;
        let cache = self.cache(&reference.repo);
        let Some(snapshot) = cache.snapshot(reference.revision()) else {
            return Ok(Located::Remote(reference));
        };
        let tree = cache.read_tree(&snapshot.commit);
        let (wanted, missing) = completeness(&snapshot.dir, tree.as_deref(), reference.path.as_deref());
        if missing.is_empty() && wanted > 0 {
            let path = reference.path.as_ref().map_or(snapshot.dir.clone(), |p| snapshot.dir.join(p));
            return Ok(Located::Here(Source { path, snapshot: Some(snapshot) }));
        }
        Ok(Located::Partly { snapshot, missing, wanted, reference })
    }

    /// Finds `text`, fetching what is missing where that is allowed.
    ///
    /// A whole repository is fetched as [`Globs::model`], unless `options` name patterns.
    ///
    /// # Errors
    /// As [`Hub::locate`]; [`HubError::Offline`] or [`HubError::Incomplete`] when the network would be needed
    /// and is not allowed; those of a pull.
    pub fn resolve(
        &self,
        text: &str,
        network: Network,
        options: &PullOptions,
        progress: &Progress<'_>,
    ) -> Result<Source, HubError> {
        let offline = self.config().offline || network == Network::Never;
        let reference = match self.locate(text)? {
            Located::Here(source) => return Ok(source),
            Located::Partly { snapshot, missing, wanted, .. } if offline => {
                return Err(HubError::Incomplete { repo: snapshot.repo, missing, wanted });
            }
            Located::Remote(reference) if offline => {
                return Err(HubError::Offline {
                    what: format!("{}@{}", reference.repo, reference.revision()),
                });
            }
            Located::Partly { reference, .. } | Located::Remote(reference) => reference,
        };
        let mut options = options.clone();
        if let Some(path) = &reference.path {
            options.files = Globs::including(&[path.clone(), format!("{path}/")]);
        } else if options.files == Globs::default() {
            options.files = Globs::model();
        }
        let plan = self.plan_pull(&reference.repo, reference.revision(), &options, progress)?;
        let snapshot = self.pull(&plan, &options, progress)?;
        let path = reference.path.map_or(snapshot.dir.clone(), |p| snapshot.dir.join(p));
        Ok(Source { path, snapshot: Some(snapshot) })
    }
}

fn looks_like_a_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~', '\\']) || text.matches('/').count() > 1 && !text.contains('@')
}

/// How many files a complete snapshot has, and which of them are missing.
///
/// By the kept file list when there is one; else by what weight indices and the names of shards and splits promise.
fn completeness(dir: &Path, tree: Option<&[RemoteFile]>, path: Option<&str>) -> (usize, Vec<String>) {
    let wanted: BTreeSet<String> = match (path, tree) {
        (Some(path), Some(tree)) => {
            let inside = format!("{path}/");
            tree.iter().map(|f| &f.path).filter(|p| *p == path || p.starts_with(&inside)).cloned().collect()
        }
        (Some(path), None) => [path.to_owned()].into(),
        (None, Some(tree)) => {
            let model = Globs::model();
            tree.iter().map(|f| &f.path).filter(|p| model.accepts(p)).cloned().collect()
        }
        (None, None) => promised(dir),
    };
    let missing = wanted.iter().filter(|p| !dir.join(p).exists()).cloned().collect();
    (wanted.len(), missing)
}

fn promised(dir: &Path) -> BTreeSet<String> {
    let mut wanted: BTreeSet<String> = ["config.json".to_owned()].into();
    let index = std::fs::read_to_string(dir.join("model.safetensors.index.json")).ok();
    let index: Option<Value> = index.and_then(|text| serde_json::from_str(&text).ok());
    match index.as_ref().and_then(|v| v.get("weight_map")).and_then(Value::as_object) {
        Some(map) => wanted.extend(map.values().filter_map(Value::as_str).map(str::to_owned)),
        None => {
            wanted.insert("model.safetensors".to_owned());
        }
    }
    wanted
}
