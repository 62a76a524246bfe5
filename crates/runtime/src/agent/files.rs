//! Files of the sandbox.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use kiln_protocol::{Control, Entry, EntryKind, Failure, Reply, Request, Text};
use kiln_types::api::{FileEntry, FileKind};

use super::error::AgentError;
use super::link::Link;
use super::stream::{Event, PATIENCE, Stream, StreamEnd};

/// The most bytes of a directory listing that the host takes from an agent.
const MAX_LISTING: usize = 64 * 1024 * 1024;
/// How long an agent may take to remove a directory with all that is in it.
const REMOVAL: Duration = Duration::from_hours(1);

/// One file, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The last component of its path; any bytes but `/` and NUL.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, whole seconds since 1970.
    pub modified: i64,
    /// What a symbolic link points to.
    pub target: Option<OsString>,
}

impl From<Entry> for FileInfo {
    fn from(entry: Entry) -> Self {
        let kind = match entry.kind {
            EntryKind::File => FileKind::File,
            EntryKind::Directory => FileKind::Directory,
            EntryKind::Symlink => FileKind::Symlink,
            EntryKind::Other => FileKind::Other,
        };
        Self {
            name: entry.name.into_os_string(),
            kind,
            size: entry.size,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            modified: entry.modified,
            target: entry.target.map(Text::into_os_string),
        }
    }
}

/// As the API shows it: bytes that are not UTF-8 are replaced.
impl From<FileInfo> for FileEntry {
    fn from(info: FileInfo) -> Self {
        Self {
            name: info.name.to_string_lossy().into_owned(),
            kind: info.kind,
            size: info.size,
            mode: info.mode,
            uid: info.uid,
            gid: info.gid,
            modified: info.modified,
            target: info.target.map(|target| target.to_string_lossy().into_owned()),
        }
    }
}

/// A file operation, for its error.
#[derive(Clone, Debug)]
struct Operation {
    verb: &'static str,
    path: String,
}

impl Operation {
    fn new(verb: &'static str, path: &Path) -> Self {
        Self { verb, path: path.display().to_string() }
    }

    fn error(&self, end: StreamEnd) -> AgentError {
        match end {
            StreamEnd::Failed(Failure::File { kind, message }) => {
                AgentError::File { operation: self.verb, path: self.path.clone(), kind, message }
            }
            other => other.into_request_error(self.verb),
        }
    }

    /// The first reply on a stream, which is no failure.
    async fn first(&self, stream: &mut Stream) -> Result<Reply, AgentError> {
        match stream.answer(self.verb).await {
            Ok(Event::Reply(Reply::Failed { failure })) => {
                Err(self.error(StreamEnd::Failed(failure)))
            }
            Ok(Event::Reply(reply)) => Ok(reply),
            Ok(Event::Data(..)) => Err(self.unexpected()),
            Err(end) => Err(self.error(end)),
        }
    }

    fn unexpected(&self) -> AgentError {
        StreamEnd::Unexpected("it answered something else").into_request_error(self.verb)
    }
}

/// A file being read. Dropped early, the rest is not sent.
#[derive(Debug)]
pub struct FileReader {
    operation: Operation,
    stream: Stream,
    size: u64,
    mode: u32,
    ended: bool,
}

impl FileReader {
    /// Its size when it was opened: a hint, the content may be shorter or longer.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its permission bits.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// The next piece; `None` after the whole file or after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, AgentError>> {
        if self.ended {
            return None;
        }
        let result = match self.stream.answer(self.operation.verb).await {
            Ok(Event::Data(_, bytes)) => return Some(Ok(bytes)),
            Ok(Event::Reply(Reply::Done {})) => None,
            Ok(Event::Reply(Reply::Failed { failure })) => {
                Some(Err(self.operation.error(StreamEnd::Failed(failure))))
            }
            Ok(Event::Reply(_)) => Some(Err(self.operation.unexpected())),
            Err(end) => Some(Err(self.operation.error(end))),
        };
        self.ended = true;
        result
    }

    /// The rest of the file; [`AgentError::TooLarge`] when it is more than `limit` bytes.
    pub async fn read_all(mut self, limit: usize) -> Result<Vec<u8>, AgentError> {
        let mut content = Vec::new();
        while let Some(bytes) = self.next().await {
            let bytes = bytes?;
            let size = content.len() + bytes.len();
            if size > limit {
                return Err(AgentError::TooLarge { what: "the file", size, limit });
            }
            content.extend_from_slice(&bytes);
        }
        Ok(content)
    }
}

/// A file being written. Dropped before [`Self::finish`], nothing changes in the sandbox.
#[derive(Debug)]
pub struct FileWriter {
    operation: Operation,
    stream: Stream,
    finished: bool,
}

impl FileWriter {
    /// Adds bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), AgentError> {
        let (operation, after) = (self.operation.verb, PATIENCE);
        match tokio::time::timeout(after, self.stream.sender().data(bytes)).await {
            Ok(Err(AgentError::Ended)) => Err(self.end().await),
            Ok(other) => other,
            Err(_) => Err(AgentError::Unanswered { operation, after }),
        }
    }

    /// Puts the file in its place.
    pub async fn finish(mut self) -> Result<(), AgentError> {
        self.finished = true;
        match self.stream.sender().end() {
            Err(AgentError::Ended) => return Err(self.end().await),
            other => other?,
        }
        let finished = self.stream.finish(self.operation.verb, PATIENCE).await;
        finished.map_err(|end| self.operation.error(end))
    }

    /// Why the agent ended the stream.
    async fn end(&mut self) -> AgentError {
        self.finished = true;
        match self.stream.finish(self.operation.verb, PATIENCE).await {
            Ok(()) => self.operation.unexpected(),
            Err(end) => self.operation.error(end),
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _an_ended_stream_is_aborted = self.stream.sender().control(Control::Abort {});
        }
    }
}

fn text(path: &Path) -> Text {
    path.as_os_str().into()
}

pub(super) async fn read(link: &Link, cwd: &Path, path: &Path) -> Result<FileReader, AgentError> {
    let operation = Operation::new("read", path);
    let mut stream = link.open(Request::Read { cwd: text(cwd), path: text(path) })?;
    match operation.first(&mut stream).await? {
        Reply::Opened { size, mode } => {
            Ok(FileReader { operation, stream, size, mode, ended: false })
        }
        _ => Err(operation.unexpected()),
    }
}

pub(super) async fn write(
    link: &Link,
    cwd: &Path,
    path: &Path,
    mode: Option<u32>,
) -> Result<FileWriter, AgentError> {
    let operation = Operation::new("write", path);
    let mut stream = link.open(Request::Write { cwd: text(cwd), path: text(path), mode })?;
    match operation.first(&mut stream).await? {
        Reply::Ready {} => Ok(FileWriter { operation, stream, finished: false }),
        _ => Err(operation.unexpected()),
    }
}

pub(super) async fn list(
    link: &Link,
    cwd: &Path,
    path: &Path,
) -> Result<Vec<FileInfo>, AgentError> {
    let operation = Operation::new("list", path);
    let mut stream = link.open(Request::List { cwd: text(cwd), path: text(path) })?;
    let mut lines = Vec::new();
    loop {
        match stream.answer(operation.verb).await {
            Ok(Event::Data(_, bytes)) => {
                let size = lines.len() + bytes.len();
                if size > MAX_LISTING {
                    return Err(AgentError::TooLarge {
                        what: "the listing",
                        size,
                        limit: MAX_LISTING,
                    });
                }
                lines.extend_from_slice(&bytes);
            }
            Ok(Event::Reply(Reply::Done {})) => break,
            Ok(Event::Reply(Reply::Failed { failure })) => {
                return Err(operation.error(StreamEnd::Failed(failure)));
            }
            Ok(Event::Reply(_)) => return Err(operation.unexpected()),
            Err(end) => return Err(operation.error(end)),
        }
    }
    let entries = serde_json::Deserializer::from_slice(&lines).into_iter::<Entry>();
    let entries = entries.map(|entry| entry.map(FileInfo::from)).collect::<Result<_, _>>();
    entries.map_err(|error| AgentError::Request {
        operation: "list",
        message: format!("its listing is malformed: {error}"),
    })
}

pub(super) async fn stat(link: &Link, cwd: &Path, path: &Path) -> Result<FileInfo, AgentError> {
    let operation = Operation::new("stat", path);
    let mut stream = link.open(Request::Stat { cwd: text(cwd), path: text(path) })?;
    match operation.first(&mut stream).await? {
        Reply::Entry { entry } => Ok(entry.into()),
        _ => Err(operation.unexpected()),
    }
}

pub(super) async fn mkdir(
    link: &Link,
    cwd: &Path,
    path: &Path,
    mode: Option<u32>,
) -> Result<(), AgentError> {
    let request = Request::Mkdir { cwd: text(cwd), path: text(path), mode };
    simple(link, Operation::new("make directory", path), request, PATIENCE).await
}

pub(super) async fn remove(
    link: &Link,
    cwd: &Path,
    path: &Path,
    recursive: bool,
) -> Result<(), AgentError> {
    let request = Request::Remove { cwd: text(cwd), path: text(path), recursive };
    simple(link, Operation::new("remove", path), request, REMOVAL).await
}

async fn simple(
    link: &Link,
    operation: Operation,
    request: Request,
    deadline: Duration,
) -> Result<(), AgentError> {
    let mut stream = link.open(request)?;
    let finished = stream.finish(operation.verb, deadline).await;
    finished.map_err(|end| operation.error(end))
}
