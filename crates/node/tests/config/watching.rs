//! A file that is replaced while a node runs on it: by writing, by renaming, by swapping symbolic links. The node ends on
//! what it says last, and takes nothing that was only half there.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use roomcast_node::Node;
use roomcast_node::config::Verdict;

use crate::support::{BASE, Folder, eventually, metric, reload, rooms, rooms_in_force, start};

const TIMES: usize = 1000;
/// After so many replacements the node is waited for, so that it also acts between them.
const BURST: usize = 50;

/// Replaces the file's content a thousand times; the node must follow.
async fn follows(file: &Path, first: usize, mut replace: impl FnMut(usize)) {
    let node = start(file).await;
    assert_eq!(rooms_in_force(&node), first);
    let mut slowest = Duration::ZERO;
    for count in 1..=TIMES {
        replace(first + count);
        if count % BURST == 0 {
            let saved = Instant::now();
            eventually("the last content is in force", || rooms_in_force(&node) == first + count).await;
            slowest = slowest.max(saved.elapsed());
        }
    }
    println!("from the last of {BURST} replacements to its being in force, at worst: {slowest:?}");
    assert_eq!(metric(&node, "roomcast_config_rejections_total"), 0.0, "nothing half written was read");
    assert_eq!(metric(&node, "roomcast_config_generation") as u64, node.store().config_generation());
    assert!(node.store().config_generation() > 20, "each burst was seen");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_written_a_thousand_times_ends_on_its_last_content() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    follows(&folder.file(), 10, |count| std::fs::write(folder.file(), rooms(count)).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_renamed_over_a_thousand_times_ends_on_its_last_content() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let draft = folder.path.join("draft");
    follows(&folder.file(), 10, |count| {
        std::fs::write(&draft, rooms(count)).unwrap();
        std::fs::rename(&draft, folder.file()).unwrap();
    })
    .await;
}

/// Points `link` elsewhere at one stroke.
fn swap(link: &Path, target: &str) {
    let draft = link.with_file_name("draft");
    symlink(target, &draft).unwrap();
    std::fs::rename(&draft, link).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_swapped_a_thousand_times_ends_on_its_last_content() {
    let folder = Folder::new();
    let version = |count: usize| {
        let name = format!("v{count}.toml");
        std::fs::write(folder.path.join(&name), rooms(count)).unwrap();
        name
    };
    symlink(version(10), folder.file()).unwrap();
    follows(&folder.file(), 10, |count| {
        swap(&folder.file(), &version(count));
        std::fs::remove_file(folder.path.join(format!("v{}.toml", count - 1))).unwrap();
    })
    .await;
}

/// As an orchestrator mounts configuration: the file is a link through a link to a directory, and that one is swapped.
struct Mounted {
    folder: Folder,
}

impl Mounted {
    fn new(first: usize) -> Self {
        let mounted = Self { folder: Folder::new() };
        mounted.version(first);
        symlink(format!("..v{first}"), mounted.folder.path.join("..data")).unwrap();
        symlink("..data/supervisor.toml", mounted.folder.file()).unwrap();
        mounted
    }

    fn version(&self, count: usize) -> PathBuf {
        let version = self.folder.path.join(format!("..v{count}"));
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("supervisor.toml"), rooms(count)).unwrap();
        version
    }

    fn update(&self, count: usize) {
        self.version(count);
        swap(&self.folder.path.join("..data"), &format!("..v{count}"));
        std::fs::remove_dir_all(self.folder.path.join(format!("..v{}", count - 1))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_directory_swapped_a_thousand_times_ends_on_its_last_content() {
    let mounted = Mounted::new(10);
    follows(&mounted.folder.file(), 10, |count| mounted.update(count)).await;
}

/// The node is elsewhere pointed to the mounted file, by yet another link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_into_a_mounted_directory_is_followed() {
    let mounted = Mounted::new(10);
    let elsewhere = Folder::new();
    symlink(mounted.folder.file(), elsewhere.file()).unwrap();
    follows(&elsewhere.file(), 10, |count| mounted.update(count)).await;
}

/// Takes the fastest of some saves, since a busy machine may be late with any one of them.
async fn fastest(node: &Node, first: usize, mut save: impl FnMut(usize)) -> Duration {
    let mut fastest = Duration::MAX;
    for count in first..first + 6 {
        save(count);
        let saved = Instant::now();
        eventually("what was saved is in force", || rooms_in_force(node) == count).await;
        // The first may have been found by the look that a node begins with. After that each save comes when the node has
        // just looked, so that without a watch it takes until the next look.
        if count > first {
            fastest = fastest.min(saved.elapsed());
        }
    }
    fastest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_is_in_force_within_a_second() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    let took = fastest(&node, 11, |count| std::fs::write(folder.file(), rooms(count)).unwrap()).await;
    println!("from save to in force: {took:?}");
    assert!(took < Duration::from_millis(450), "{took:?}: the watch says nothing, only the next look did");
    node.stop().await;
}

/// No watch sees that a directory above the file's own was replaced; the looks from time to time do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_no_watch_sees_is_found_within_a_second() {
    let folder = Folder::new();
    let version = |count: usize| {
        let inner = folder.path.join(format!("v{count}/inner"));
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("supervisor.toml"), rooms(count)).unwrap();
    };
    let current = folder.path.join("current");
    version(10);
    std::fs::rename(folder.path.join("v10"), &current).unwrap();
    let node = start(&current.join("inner/supervisor.toml")).await;
    let took = fastest(&node, 11, |count| {
        version(count);
        std::fs::rename(&current, folder.path.join(format!("old{count}"))).unwrap();
        std::fs::rename(folder.path.join(format!("v{count}")), &current).unwrap();
    })
    .await;
    println!("from the swap of a directory above to in force: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_for_a_moment_is_no_mistake_and_one_that_stays_away_is_told_once() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    for count in 11..16 {
        std::fs::remove_file(folder.file()).unwrap();
        tokio::task::yield_now().await;
        std::fs::write(folder.file(), rooms(count)).unwrap();
        eventually("the file that came back is in force", || rooms_in_force(&node) == count).await;
    }
    assert_eq!(metric(&node, "roomcast_config_rejections_total"), 0.0);
    std::fs::remove_file(folder.file()).unwrap();
    eventually("that it is gone is told", || metric(&node, "roomcast_config_rejections_total") > 0.0).await;
    assert_eq!(rooms_in_force(&node), 15, "the settings in force stay");
    std::fs::write(folder.file(), rooms(16)).unwrap();
    eventually("the file that came back is in force", || rooms_in_force(&node) == 16).await;
    assert_eq!(metric(&node, "roomcast_config_rejections_total"), 1.0);
    node.stop().await;
}

/// Opening a pipe waits for somebody who writes to it, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_the_files_place_is_refused_and_the_good_file_after_it_is_in_force() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    let draft = folder.path.join("draft");
    assert!(std::process::Command::new("mkfifo").arg(&draft).status().unwrap().success());
    std::fs::rename(&draft, folder.file()).unwrap();
    let outcome = reload(&node).await;
    assert_eq!(outcome.verdict, Verdict::Refused);
    assert!(outcome.errors[0].to_string().contains("it is not a file"), "{:?}", outcome.errors);
    assert_eq!(rooms_in_force(&node), 10, "the settings in force stay");
    std::fs::write(&draft, rooms(11)).unwrap();
    std::fs::rename(&draft, folder.file()).unwrap();
    eventually("the good file is in force", || rooms_in_force(&node) == 11).await;
    node.stop().await;
}

/// An editor that empties a file before it writes it must not put the defaults in force for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_file_is_the_defaults_only_when_it_stays_empty() {
    let folder = Folder::new();
    let file = folder.file();
    std::fs::write(&file, rooms(10)).unwrap();
    let node = start(&file).await;
    for count in 11..16 {
        std::fs::write(&file, "").unwrap();
        tokio::task::yield_now().await;
        std::fs::write(&file, rooms(count)).unwrap();
        eventually("what was written is in force", || rooms_in_force(&node) == count).await;
    }
    assert_eq!(node.store().config_generation(), 6, "nothing else ever was");
    std::fs::write(&file, "").unwrap();
    eventually("an empty file is all defaults", || rooms_in_force(&node) == 10_000).await;
    assert!(!node.store().config_waiting().is_empty(), "its listeners wait for a restart");
    node.stop().await;
}

/// Comments and spaces are no change, and a file that was touched is none either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_nothing_is_no_new_generation() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    let read = || metric(&node, "roomcast_config_last_good_timestamp_seconds");
    eventually("the file was read", || read() > 0.0).await;
    let before = read();
    std::fs::write(folder.file(), format!("# a word\n{}", rooms(10))).unwrap();
    eventually("the comment was read", || read() > before).await;
    assert_eq!(node.store().config_generation(), 1);
    std::fs::write(folder.file(), format!("{BASE}[limits]\nmax_rooms = 11\n")).unwrap();
    eventually("the next change is in force", || rooms_in_force(&node) == 11).await;
    assert_eq!(node.store().config_generation(), 2);
    node.stop().await;
}
