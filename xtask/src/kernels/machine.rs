//! One machine: from its start to its end, or to the end of our patience.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::kernel::Kernel;

/// How long a machine may take; emulated, everything takes ten times as long and more.
const PATIENCE: Duration = Duration::from_mins(45);
/// How long it may say nothing.
const SILENCE: Duration = Duration::from_mins(10);

/// Ends it whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots, shows what the guest says and gives it, line by line.
pub(super) fn run(
    kernel: &Kernel,
    initrd: &Path,
    disks: &[&Path],
    run: &Path,
) -> Result<Vec<String>> {
    let (console, results) = (run.join("console.log"), run.join("results.log"));
    fs::write(&results, "")?;
    let mut command = Command::new("setpriv");
    // The machine ends with this task, however that ends.
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
    command.args(["-m", "2048", "-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-no-reboot", "-nic", "user,model=virtio-net-pci,restrict=on"]);
    command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(initrd);
    command.args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off"]);
    for disk in disks {
        let file = disk.display();
        let drive = format!("file={file},format=raw,if=virtio,cache=unsafe,snapshot=on");
        command.args(["-drive", &drive]);
    }
    for log in [&console, &results] {
        command.arg("-serial").arg(format!("file:{}", log.display()));
    }
    // What a machine changes on its disks goes to a temporary file, which can become large.
    command.env("TMPDIR", run).stdin(Stdio::null()).process_group(0);
    let child = command.spawn().context("could not start setpriv and qemu-system-x86_64")?;
    let lines = watch(&mut Running(child), &results);
    lines.with_context(|| format!("the machine's console is in {}", console.display()))
}

fn watch(machine: &mut Running, results: &Path) -> Result<Vec<String>> {
    let start = Instant::now();
    let mut said = Instant::now();
    let mut text = String::new();
    let mut shown = 0;
    loop {
        let ended = machine.0.try_wait().context("could not ask for the machine")?;
        let mut file = File::open(results)?;
        file.seek(SeekFrom::Start(text.len() as u64))?;
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        if !more.is_empty() {
            said = Instant::now();
        }
        // As many bytes as there were, so that the next look begins behind them.
        text.extend(more.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }));
        while let Some(length) = text[shown..].find('\n') {
            println!("  {}", text[shown..shown + length].trim_end());
            shown += length + 1;
        }
        if let Some(status) = ended {
            if !status.success() {
                bail!("the machine ended with {status}");
            }
            return Ok(text.lines().map(|line| line.trim_end().to_owned()).collect());
        }
        if start.elapsed() > PATIENCE {
            bail!("the machine did not come to its end in {} s", PATIENCE.as_secs());
        }
        if said.elapsed() > SILENCE {
            bail!("the machine has said nothing for {} s", SILENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(200));
    }
}
