//! The guest's process table, as `/proc` shows it.

use std::collections::HashSet;

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};

/// Rounds of "find what is new, stop it": enough for any tree that does not fork for ever.
const ROUNDS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    dead: bool,
}

/// Kills the process group of `leader`, its session and its descendants.
///
/// All are stopped before the first one is killed: the children of a dead process are nobody's
/// descendants any more, and a stopped one cannot fork. Without `/proc` only the group is killed.
/// `leader` must not have been reaped: the number could be anybody's.
pub(crate) fn kill_tree(leader: i32) {
    let mut known = HashSet::from([leader]);
    signal_group(leader, Signal::STOP);
    for _ in 0..ROUNDS {
        let tree = tree(&all(), leader);
        let fresh: Vec<i32> = tree.into_iter().filter(|pid| known.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            send(pid, Signal::STOP);
        }
    }
    signal_group(leader, Signal::KILL);
    for pid in known {
        send(pid, Signal::KILL);
    }
}

/// Sends a signal to a whole process group; gone is fine.
pub(crate) fn signal_group(leader: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(leader) {
        let _gone_is_fine = kill_process_group(group, signal);
    }
}

/// Sends a signal to every other process of the sandbox.
pub(crate) fn signal_all(signal: Signal) {
    if getpid() == Pid::INIT {
        // PID 1 of a namespace reaches exactly the namespace, atomically.
        crate::sys::signal_everything(signal.as_raw());
    } else {
        // An ordinary process must not touch what it did not start.
        for pid in tree(&all(), getpid().as_raw_nonzero().get()) {
            send(pid, signal);
        }
    }
}

fn send(pid: i32, signal: Signal) {
    if pid > 1
        && let Some(pid) = Pid::from_raw(pid)
    {
        let _gone_is_fine = kill_process(pid, signal);
    }
}

/// The living in the session of `root` and below it in the tree; not `root` itself.
fn tree(processes: &[Process], root: i32) -> Vec<i32> {
    let mut members = HashSet::from([root]);
    loop {
        let before = members.len();
        for process in processes {
            if members.contains(&process.parent) || process.session == root {
                members.insert(process.pid);
            }
        }
        if members.len() == before {
            break;
        }
    }
    let living = processes.iter().filter(|process| !process.dead && process.pid != root);
    living.map(|process| process.pid).filter(|pid| members.contains(pid)).collect()
}

fn all() -> Vec<Process> {
    let Ok(directory) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = directory.filter_map(Result::ok).map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Reads a `/proc/PID/stat` line (proc(5)); the name in it may hold anything, parentheses too.
fn parse(pid: i32, line: &[u8]) -> Option<Process> {
    let end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&line[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, session, dead: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_read_over() {
        let line = b"7 (a) Z 1 (b c) S 3 7 5 34816 7 4194560 1 0";
        assert_eq!(parse(7, line), Some(Process { pid: 7, parent: 3, session: 5, dead: false }));
        assert_eq!(parse(7, b"7 (a"), None);
    }

    #[test]
    fn the_tree_has_descendants_and_the_session_but_no_dead_and_no_others() {
        let process = |pid, parent, session| Process { pid, parent, session, dead: false };
        let processes = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(13, 12, 12),
            process(12, 11, 12),
            process(11, 10, 10),
            process(14, 1, 10),
            Process { dead: true, ..process(15, 10, 10) },
            process(20, 1, 20),
        ];
        let mut found = tree(&processes, 10);
        found.sort_unstable();
        assert_eq!(found, [11, 12, 13, 14]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = getpid().as_raw_nonzero().get();
        assert!(all().iter().any(|process| process.pid == own && !process.dead));
    }
}
