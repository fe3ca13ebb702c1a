//! Watches the configuration file: tells the actor what it has settled on. What counts as settled is decided in
//! `config::settle`.
//!
//! Directories are watched, not the file: an editor replaces it by renaming, and mounted configuration is replaced by
//! swapping a symbolic link somewhere on the way to it. Watches can be lost (a full queue, a limit of the system, a network
//! drive), so the content is also looked at again and again; alone, that is as good, only later.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use roomcast_supervision::{Address, Failure};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::Message;
use crate::config::{Content, Next, Settling, read_file};
use crate::store::Store;

/// Between looks when no watch says anything. With the time to settle it stays below a second.
const POLL: Duration = Duration::from_millis(500);
/// Events come in crowds, and a busy directory must not keep us busy.
const CROWD: Duration = Duration::from_millis(20);
/// As many links as Linux itself follows on the way to one file.
const MAX_LINKS: usize = 40;

/// Runs for as long as the actor does.
pub(super) async fn watch(file: PathBuf, store: Arc<Store>, actor: Address<Message>) -> Result<(), Failure> {
    let bell = Arc::new(Notify::new());
    let mut watches = Watches::new(&bell);
    let mut settling = Settling::default();
    let begin = Instant::now();
    loop {
        let path = file.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // First the watches: what changes after the look rings the bell.
            watches.follow(&directories(&path));
            (watches, look(&path))
        });
        let found;
        (watches, found) = looked.await?;
        match settling.look(begin.elapsed(), found, store.judged().as_deref()) {
            Next::Rest => {
                if timeout(POLL, bell.notified()).await.is_ok() {
                    sleep(CROWD).await;
                }
            }
            Next::LookAgain(after) => sleep(after).await,
            Next::Judge(content) => {
                let (done, judged) = oneshot::channel();
                // If the actor is gone, so is this task in a moment; one message waits at most.
                if actor.send(Message::Settled(content, done)).is_err() || judged.await.is_err() {
                    sleep(POLL).await;
                }
            }
        }
    }
}

/// One look at the file.
pub(super) fn look(path: &Path) -> Content {
    match read_file(path) {
        Ok(bytes) => Content::Bytes(bytes),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// The watches that are set.
struct Watches {
    watcher: Option<RecommendedWatcher>,
    /// By directory, with what identifies it: a directory that was replaced by another is watched anew.
    set: BTreeMap<PathBuf, u64>,
}

impl Watches {
    fn new(bell: &Arc<Notify>) -> Self {
        let bell = Arc::clone(bell);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Our own looks are accesses too; they must not ring.
            let looked_at = matches!(&event, Ok(Event { kind: EventKind::Access(access), .. })
                if *access != AccessKind::Close(AccessMode::Write));
            if !looked_at {
                bell.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "the configuration is not watched, but looked at every half a second");
        });
        Self { watcher: watcher.ok(), set: BTreeMap::new() }
    }

    /// Watches exactly these directories.
    fn follow(&mut self, directories: &BTreeMap<PathBuf, u64>) {
        let Some(watcher) = &mut self.watcher else { return };
        self.set.retain(|directory, identity| {
            let stays = directories.get(directory) == Some(identity);
            if !stays {
                // It may have gone by itself.
                let _ = watcher.unwatch(directory);
            }
            stays
        });
        for (directory, identity) in directories {
            // A watch that cannot be set is tried again at the next look.
            if !self.set.contains_key(directory) && watcher.watch(directory, RecursiveMode::NonRecursive).is_ok() {
                self.set.insert(directory.clone(), *identity);
            }
        }
    }
}

/// The directories in which a rename could lead to another file under this path: that of the file itself and of each
/// symbolic link on the way. Each with its inode.
fn directories(file: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut note = |directory: &Path| {
        if let Ok(metadata) = std::fs::metadata(directory) {
            found.insert(directory.to_owned(), metadata.ino());
        }
    };
    let Ok(path) = std::path::absolute(file) else { return found };
    let mut at = PathBuf::from("/");
    // What is still to walk, last first.
    let mut left: Vec<OsString> = names(&path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match std::fs::read_link(&next) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                note(&at);
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                left.extend(names(&target));
            }
            _ if left.is_empty() => note(&at),
            _ => at = next,
        }
    }
    found
}

/// A path's names, last first.
fn names(path: &Path) -> Vec<OsString> {
    let walked = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    walked.map(|part| part.as_os_str().to_owned()).rev().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_directory_whose_change_could_lead_to_another_file_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let mounted = root.join("mounted");
        std::fs::create_dir_all(mounted.join("..v1")).unwrap();
        std::fs::write(mounted.join("..v1/supervisor.toml"), "").unwrap();
        symlink("..v1", mounted.join("..data")).unwrap();
        symlink("..data/supervisor.toml", mounted.join("supervisor.toml")).unwrap();
        let watched = |file: &Path| directories(file).into_keys().collect::<Vec<_>>();
        assert_eq!(watched(&mounted.join("supervisor.toml")), [mounted.clone(), mounted.join("..v1")]);
        let etc = root.join("etc");
        std::fs::create_dir(&etc).unwrap();
        symlink(mounted.join("supervisor.toml"), etc.join("supervisor.toml")).unwrap();
        symlink("../mounted", etc.join("folder")).unwrap();
        assert_eq!(watched(&etc.join("supervisor.toml")), [etc.clone(), mounted.clone(), mounted.join("..v1")]);
        assert_eq!(watched(&etc.join("folder/../mounted/..v1/supervisor.toml")), [etc.clone(), mounted.join("..v1")]);
        assert_eq!(watched(&etc.join("not-there-yet.toml")), [etc]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert_eq!(directories(&root.join("a")).into_keys().collect::<Vec<_>>(), [root]);
    }
}
