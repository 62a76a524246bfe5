//! Writing a file: into a new one beside it, then in its place.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_protocol::{Control, FileErrorKind, Reply};

use super::failure::FileError;
use super::{blocking, change, done};
use crate::stream::{Inbound, Input, Stream};

/// Permission bits of a new file, when nobody says.
const FILE_MODE: u32 = 0o644;
/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

pub(super) async fn run(
    stream: &Rc<Stream>,
    mut inbound: Inbound,
    path: PathBuf,
    mode: Option<u32>,
) -> Result<Reply, FileError> {
    let mut draft = blocking(move || Draft::open(&path, mode)).await?;
    stream.reply(Reply::Ready {});
    loop {
        let input = tokio::select! {
            biased;
            control = inbound.controls.recv() => match control {
                Some(Control::Abort {}) | None => return Err(aborted()),
                Some(_) => continue,
            },
            input = inbound.input.recv() => input,
        };
        match input {
            Some(Input::Bytes(bytes)) => {
                let size = bytes.len();
                draft = blocking(move || {
                    draft.file.write_all(&bytes)?;
                    Ok(draft)
                })
                .await?;
                stream.consumed(size);
            }
            Some(Input::End) => {
                blocking(move || draft.put()).await?;
                return Ok(done());
            }
            None => return Err(aborted()),
        }
    }
}

fn aborted() -> FileError {
    FileError::new(FileErrorKind::Aborted, "the host gave up before the end of the file")
}

/// The new content, under a temporary name. Dropped, it is removed.
#[derive(Debug)]
struct Draft {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    mode: u32,
    placed: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed {
            let _nothing_better_can_be_done = fs::remove_file(&self.temporary);
        }
    }
}

impl Draft {
    fn open(path: &Path, mode: Option<u32>) -> Result<Self, FileError> {
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(FileError::new(FileErrorKind::IsADirectory, "it ends with a slash"));
        }
        let target = follow(path)?;
        let old = match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(FileError::new(FileErrorKind::IsADirectory, "it is a directory"));
            }
            Ok(metadata) if !metadata.is_file() => return Err(FileError::not_regular()),
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let parent = target.parent().unwrap_or(Path::new("/"));
        change::mkdir(parent, None).map_err(|error| match error.kind {
            FileErrorKind::AlreadyExists => FileError::new(
                FileErrorKind::NotADirectory,
                format!("{} is not a directory", parent.display()),
            ),
            _ => FileError {
                message: format!("parent {}: {}", parent.display(), error.message),
                ..error
            },
        })?;
        let old_mode = old.as_ref().map(|old| old.mode() & 0o7777);
        let mode = mode.or(old_mode).unwrap_or(FILE_MODE) & 0o7777;
        let (file, temporary) = create_beside(parent)?;
        let draft = Self { file, temporary, target, mode, placed: false };
        // The old file's owner, else the directory's: a user's files stay the user's.
        match old {
            Some(old) => fchown(&draft.file, Some(old.uid()), Some(old.gid()))?,
            None => change::own_as_parent(&draft.temporary)?,
        }
        Ok(draft)
    }

    /// After the owner, since a change of owner takes setuid away.
    fn put(mut self) -> Result<(), FileError> {
        self.file.set_permissions(Permissions::from_mode(self.mode))?;
        match fs::rename(&self.temporary, &self.target) {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            // A mount point (as /etc/hosts can be) has no name to take over; its content can be.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                let mut content = File::open(&self.temporary)?;
                let mut options = File::options();
                // It could have become a fifo, whose opening would wait.
                options.write(true).truncate(true).custom_flags(libc::O_NONBLOCK);
                let mut target = options.open(&self.target)?;
                std::io::copy(&mut content, &mut target)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Where a path leads in the end, which need not be there.
fn follow(path: &Path) -> Result<PathBuf, FileError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("/")).join(link),
            // Not a link, or not there.
            Err(_) => return Ok(path),
        }
    }
    Err(FileError::new(FileErrorKind::TooManyLinks, "too many symbolic links"))
}

fn create_beside(parent: &Path) -> Result<(File, PathBuf), FileError> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".agent-{}-{number}.tmp", std::process::id());
        let temporary = parent.join(name);
        let created = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
        match created {
            Ok(file) => return Ok((file, temporary)),
            // Left by an agent that was killed: take the next number.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(FileError::at(&temporary, error)),
        }
    }
}
