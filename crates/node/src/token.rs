//! The admin token: read from the operator's file, or made for this run in a file that only this user can read, named so
//! that the command line finds it by the admin port.

use std::path::{Path, PathBuf};

/// Fewer characters can be guessed.
const MIN_LENGTH: usize = 16;
/// The most that a token's file holds.
const MAX_LENGTH: u64 = 4096;

/// Reads a token's file.
///
/// # Errors
/// When it cannot be read or holds no token.
pub(crate) fn read(file: &Path) -> std::io::Result<String> {
    let bytes = crate::config::read_at_most(file, MAX_LENGTH)?;
    let text = String::from_utf8(bytes).map_err(|_| std::io::Error::other("is not text"))?;
    let token = text.trim().to_owned();
    if token.len() < MIN_LENGTH {
        return Err(std::io::Error::other("holds fewer than 16 characters, which can be guessed"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(std::io::Error::other("holds a character that no header can carry"));
    }
    Ok(token)
}

/// Makes a token for the node whose admin port this is.
///
/// # Errors
/// When its file cannot be written; the path says which.
pub(crate) fn make(port: u16) -> Result<(String, PathBuf), (PathBuf, std::io::Error)> {
    let file = directory().join(format!("{}{:08x}{SUFFIX}", prefix(port), fastrand::u32(..)));
    let mut random = [0; 24];
    if let Err(error) = getrandom::fill(&mut random) {
        return Err((file, std::io::Error::other(error.to_string())));
    }
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    match write_private(&file, &token) {
        Ok(()) => Ok((token, file)),
        Err(error) => Err((file, error)),
    }
}

/// The token that a node of this user has made for that port: the newest, since one that was killed leaves its own.
pub(crate) fn find(port: u16) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(directory()).ok()?.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| name.starts_with(&prefix(port)) && name.ends_with(SUFFIX))?;
        let metadata = entry.metadata().ok()?;
        // What others may read is none of ours.
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
            return None;
        }
        Some((metadata.modified().ok()?, read(&directory().join(name)).ok()?))
    });
    files.max_by_key(|(modified, _)| *modified).map(|(_, token)| token)
}

const SUFFIX: &str = ".token";

fn prefix(port: u16) -> String {
    format!("roomcast-{port}-")
}

fn directory() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

fn write_private(file: &Path, token: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // `create_new` follows no link that somebody else left in a shared directory.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_private_and_found_by_its_port() {
        use std::os::unix::fs::MetadataExt;
        // No listener of this machine has it.
        let port = 0;
        let (token, file) = make(port).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&file).unwrap(), token);
        assert_eq!(find(port), Some(token.clone()));
        std::fs::remove_file(&file).unwrap();
        assert_ne!(find(port), Some(token));
    }

    /// A pipe would be waited for, for ever, and what the system makes up says that its length is 0.
    #[test]
    fn what_is_no_file_or_hides_its_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("token");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).unwrap_err().to_string().contains("it is not a file"));
        assert!(read(directory.path()).unwrap_err().to_string().contains("it is not a file"));
        let made_up = Path::new("/proc/kallsyms");
        if made_up.exists() {
            assert!(read(made_up).unwrap_err().to_string().contains("it is larger than 4096 bytes"));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert!(read(&file).is_err());
        for wrong in ["", "short", "with a space inside", "ümlaut-0123456789", &"x".repeat(5000)] {
            std::fs::write(&file, wrong).unwrap();
            assert!(read(&file).is_err(), "{wrong}");
        }
        std::fs::write(&file, "  0123456789abcdef\n").unwrap();
        assert_eq!(read(&file).unwrap(), "0123456789abcdef");
    }
}
