//! The table at the end: what was done, how often, how long.

use std::time::Duration;

/// Rows of measured times.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(&'static str, Vec<Duration>)>);

impl Table {
    /// Adds a row.
    pub(super) fn row(&mut self, name: &'static str, times: &[Duration]) {
        self.0.push((name, times.to_vec()));
    }

    /// Prints all rows; times are of the whole command, from its start to its end.
    pub(super) fn print(&self) {
        println!("\n{:<14} {:>4} {:>12} {:>12} {:>12}", "", "n", "median", "min", "max");
        for (name, times) in &self.0 {
            let mut times = times.clone();
            times.sort_unstable();
            let [Some(median), Some(min), Some(max)] =
                [times.get(times.len() / 2), times.first(), times.last()]
            else {
                continue;
            };
            let count = times.len();
            let [median, min, max] = [median, min, max].map(|time| show(*time));
            println!("{name:<14} {count:>4} {median:>12} {min:>12} {max:>12}");
        }
        println!("(each is one `kiln` command, process start included)");
    }
}

fn show(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
