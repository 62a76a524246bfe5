//! Python's tarfile, in a process that reads one archive after the other.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::habits::Shown;
use super::listing::{Attributes, Listing, Node};

/// The process; it ends with the value.
pub(super) struct Python {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    version: String,
}

/// What it made of an archive.
pub(super) struct Answer {
    pub(super) listing: Listing,
    /// What tools are known to do differently.
    pub(super) features: Vec<String>,
    /// The same of attributes of single paths.
    pub(super) habits: Vec<Shown>,
}

impl Python {
    pub(super) fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-W", "ignore", "-c", include_str!("worker.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python is installed");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut version = String::new();
        output.read_line(&mut version).expect("it says its version");
        let version = version.trim().to_owned();
        Self { child, input, output, version }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn read(&mut self, archive: &Path) -> Result<Answer, String> {
        let input = self.input.as_mut().expect("it is open until the end");
        writeln!(input, "{}", archive.display()).expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        let answer: Value = serde_json::from_str(&line).expect("it answers in JSON");
        if let Some(refused) = answer["refused"].as_str() {
            assert!(!refused.starts_with("crash"), "{refused}");
            return Err(refused.to_owned());
        }
        let entries = answer["entries"].as_object().expect("an answer has entries");
        let listing = entries.iter().map(|(path, node)| (bytes(path), read_node(node))).collect();
        let features = answer["features"].as_array().into_iter().flatten();
        let features = features.filter_map(Value::as_str).map(str::to_owned).collect();
        let habits = answer["habits"].as_array().into_iter().flatten();
        let habits = habits
            .filter_map(|habit| Some((bytes(habit[0].as_str()?), habit[1].as_str()?.to_owned())));
        Ok(Answer { listing, features, habits: habits.collect() })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.child.wait();
    }
}

fn read_node(node: &Value) -> Node {
    let text = |key: &str| node[key].as_str();
    let number = |key: &str| node[key].as_u64().unwrap_or_default();
    let implied = node["implied"].as_bool().unwrap_or(false);
    let attributes = (!implied).then(|| Attributes {
        mode: number("mode") as u32,
        uid: number("uid"),
        gid: number("gid"),
        mtime: node["mtime"].as_f64().unwrap_or_default(),
        xattrs: node["xattrs"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (bytes(name), bytes(value.as_str().unwrap_or_default())))
            .collect::<BTreeMap<_, _>>(),
    });
    Node {
        kind: text("kind").and_then(|kind| kind.chars().next()).unwrap_or('?'),
        attributes,
        content: text("content").map(str::to_owned),
        size: number("size"),
        target: text("target").map(bytes),
        device: node["device"].as_array().map(|device| {
            (device[0].as_u64().unwrap_or_default(), device[1].as_u64().unwrap_or_default())
        }),
        same: text("same").map(bytes).unwrap_or_default(),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("it is hexadecimal");
            u8::from_str_radix(pair, 16).expect("it is hexadecimal")
        })
        .collect()
}
