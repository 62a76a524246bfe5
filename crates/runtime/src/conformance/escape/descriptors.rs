//! Descriptors that lead out: those that the agent and its children have open.

use std::time::Duration;

use bytes::Bytes;

use super::super::{Subject, output, spec, with_sandbox};
use crate::agent::ExecSpec;

pub(super) async fn run(subject: &dyn Subject) {
    with_sandbox(subject, spec(), async |running| {
        // A descriptor of a directory outside would be a door; files without a name are none.
        let list =
            "for fd in /proc/1/fd/* /proc/self/fd/*; do readlink $fd; done 2>/dev/null; true";
        let links = output(running, list).await;
        for link in links.lines().filter(|link| link.starts_with('/')) {
            let inside = ["/dev/", "/proc/"].iter().any(|known| link.starts_with(known));
            assert!(inside, "a descriptor of `{link}`:\n{links}");
        }
        // The working directory of a command is its caller's choice: through whatever happens to be
        // open, it must be one of the sandbox, or refused.
        for number in 0..24 {
            for place in ["/proc/self/fd", "/proc/1/fd"] {
                let spec = ExecSpec {
                    argv: ["/bin/sh", "-c", "cat ../../../../../etc/hostname; ls ../../../.."]
                        .map(String::from)
                        .to_vec(),
                    env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
                    cwd: Some(format!("{place}/{number}")),
                    user: None,
                    pty: None,
                    timeout: Some(Duration::from_secs(20)),
                };
                let Ok(done) = running.agent.run(spec, Bytes::new(), 1 << 16).await else {
                    continue;
                };
                let text = String::from_utf8_lossy(&done.stdout);
                assert!(
                    done.status.code != 0 || text.starts_with("conformance\n"),
                    "{place}/{number} leads out: {text}"
                );
            }
        }
    })
    .await;
}
