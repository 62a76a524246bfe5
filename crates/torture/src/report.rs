//! What a run has to say at its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::operation::Operation;
use crate::plan::Plan;

/// Counts and times.
#[derive(Debug)]
pub(crate) struct Report {
    began: Instant,
    seed: u64,
    verbose: bool,
    /// By area, fault: points, hits.
    table: BTreeMap<(&'static str, String), (u64, u64)>,
    operations: BTreeMap<&'static str, u64>,
    fail_points: BTreeMap<&'static str, u64>,
    restarts: Vec<Duration>,
    small: Vec<u64>,
    directories: Vec<u64>,
    epochs: u64,
    points: u64,
    slow_starts: u64,
    mended: u64,
}

impl Report {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        Self {
            began: Instant::now(),
            seed: arguments.seed,
            verbose: arguments.verbose,
            table: BTreeMap::new(),
            operations: BTreeMap::new(),
            fail_points: kiln_failpoint::POINTS.iter().map(|point| (point.name, 0)).collect(),
            restarts: Vec::new(),
            small: Vec::new(),
            directories: Vec::new(),
            epochs: 0,
            points: 0,
            slow_starts: 0,
            mended: 0,
        }
    }

    /// Another data directory is begun.
    pub(crate) fn epoch(&mut self, number: u64, small: bool, directories: bool) {
        self.epochs += 1;
        self.small.extend(small.then_some(number));
        self.directories.extend(directories.then_some(number));
    }

    /// A first start met a fail point.
    pub(crate) fn first_start(&mut self, name: &'static str, action: &str) {
        let row = self.table.entry(("first start", format!("{action} at {name}"))).or_default();
        row.0 += 1;
        row.1 += 1;
        *self.fail_points.entry(name).or_default() += 1;
    }

    /// A disk that had met a full host was stopped and started.
    pub(crate) fn mended(&mut self) {
        self.mended += 1;
    }

    /// One point was passed without a failure.
    pub(crate) fn point(&mut self, number: u64, plan: &Plan, hit: bool, outcome: &str) {
        self.points += 1;
        let row = self.table.entry((plan.fault.area().name(), plan.fault.name())).or_default();
        row.0 += 1;
        row.1 += u64::from(hit);
        for operation in &plan.operations {
            *self.operations.entry(operation.kind()).or_default() += 1;
        }
        if let (crate::fault::Fault::Point { point, .. }, true) = (&plan.fault, hit) {
            *self.fail_points.entry(point.name).or_default() += 1;
        }
        if self.verbose {
            let kinds: Vec<&str> = plan.operations.iter().map(Operation::kind).collect();
            println!("{number}: {:?} during {}: {outcome}", plan.fault, kinds.join(" + "));
        } else if self.points.is_multiple_of(50) {
            println!("{} points, {:.2} a second", self.points, self.rate());
        }
    }

    /// Points a second.
    fn rate(&self) -> f64 {
        // No run has more.
        let points = u32::try_from(self.points).unwrap_or(u32::MAX);
        f64::from(points) / self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn restart(&mut self, time: Duration) {
        self.restarts.push(time);
    }

    pub(crate) fn slow_start(&mut self) {
        self.slow_starts += 1;
    }

    pub(crate) fn print(&mut self) {
        let elapsed = self.began.elapsed().as_secs_f64();
        let rate = self.rate();
        println!(
            "\nseed {}: {} points in {elapsed:.0} s, {rate:.2} a second",
            self.seed, self.points
        );
        println!(
            "{} hundreds; on a small disk: {:?}; with layers in directories: {:?}",
            self.epochs, self.small, self.directories
        );
        println!("\n| area | fault | points | took effect |\n|---|---|---|---|");
        for ((area, fault), (points, hits)) in &self.table {
            println!("| {area} | {fault} | {points} | {hits} |");
        }
        println!("\n| operation | times |\n|---|---|");
        for (operation, times) in &self.operations {
            println!("| {operation} | {times} |");
        }
        self.restarts.sort_unstable();
        if let Some(last) = self.restarts.last() {
            let at = |share: usize| self.restarts[(self.restarts.len() - 1) * share / 100];
            println!(
                "\n{} restarts: p50 {} ms, p99 {} ms, max {} ms; {} above 2 s under recorded load",
                self.restarts.len(),
                at(50).as_millis(),
                at(99).as_millis(),
                last.as_millis(),
                self.slow_starts
            );
            println!("{} disks met a full host and were mended by a stop and a start", self.mended);
        }
        let missed: Vec<&str> = self
            .fail_points
            .iter()
            .filter(|(_, hits)| **hits == 0)
            .map(|(name, _)| *name)
            .collect();
        println!(
            "\n{} of {} fail points took effect; not hit: {}",
            self.fail_points.len() - missed.len(),
            self.fail_points.len(),
            if missed.is_empty() { "none".to_owned() } else { missed.join(", ") }
        );
    }
}
