//! SIGINT and SIGTERM: the first lets the row come to an end, so that everything is put away as after a
//! whole run; the second ends this program where it stands.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::program;

static SIGNAL: AtomicI32 = AtomicI32::new(0);
static TIDYING: AtomicBool = AtomicBool::new(false);

/// Catches both from here on.
pub(crate) fn catch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let caught = "could not catch signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(caught)?;
    let mut terminate = signal(SignalKind::terminate()).context(caught)?;
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => 2,
                    _ = terminate.recv() => 15,
                };
                if SIGNAL.swap(number, Ordering::SeqCst) != 0 {
                    eprintln!("bench: ended; the next run puts away what is left");
                    std::process::exit(128 + number);
                }
                eprintln!("bench: {}: putting everything away first", name(number));
                if !TIDYING.load(Ordering::SeqCst) {
                    program::end_all();
                }
            }
        });
    });
    Ok(())
}

/// Fails when one of them came.
pub(crate) fn check() -> Result<()> {
    match signalled() {
        Some(number) => bail!("interrupted by {}", name(number)),
        None => Ok(()),
    }
}

/// The number of the signal that came.
pub(crate) fn signalled() -> Option<i32> {
    Some(SIGNAL.load(Ordering::SeqCst)).filter(|&number| number != 0)
}

/// From here on everything is put away, and programs that help with it are not ended by a signal.
pub(crate) fn tidy() {
    TIDYING.store(true, Ordering::SeqCst);
}

const fn name(number: i32) -> &'static str {
    if number == 2 { "SIGINT" } else { "SIGTERM" }
}
