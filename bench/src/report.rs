//! The table of a run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::record::{self, Line};
use crate::rows::{ROWS, Row};
use crate::stats::{Summary, summary};

const BEGIN: &str = "<!-- table: begin -->";
const END: &str = "<!-- table: end -->";

/// Prints the table of a file of samples.
pub(crate) fn print(file: &Path) -> Result<()> {
    println!("{}", table(&record::read(file)?)?);
    Ok(())
}

/// Writes the table of a file of samples between the marks of a document.
pub(crate) fn write(file: &Path, document: &Path) -> Result<()> {
    let table = table(&record::read(file)?)?;
    let shown = document.display();
    let text = fs::read_to_string(document).with_context(|| format!("could not read {shown}"))?;
    let marks = text.find(BEGIN).zip(text.find(END)).filter(|(begin, end)| begin < end);
    let (begin, end) = marks.with_context(|| format!("{shown} has no {BEGIN} … {END}"))?;
    let text = format!("{}{BEGIN}\n\n{table}\n{}", &text[..begin], &text[end..]);
    fs::write(document, text).with_context(|| format!("could not write {shown}"))
}

fn table(lines: &[Line]) -> Result<String> {
    let mut text = String::new();
    for line in lines {
        if let Line::Machine { facts } = line {
            machine(&mut text, facts)?;
        }
    }
    let loads: Vec<f64> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Sample { load, .. } => Some(*load),
            _ => None,
        })
        .collect();
    if let Some(load) = summary(&loads, false) {
        let (median, tail) = (load.median, load.tail);
        writeln!(text, "Load average while it ran: median {median:.2}, p99 {tail:.2}.\n")?;
    }
    text += "| operation | who | n | median | p99 (max if n < 100) | against Kiln | budget |\n";
    text += "| --- | --- | ---: | ---: | ---: | ---: | --- |\n";
    for row in &ROWS {
        write_row(&mut text, row, &contestants(lines, row))?;
    }
    let mut notes = lines
        .iter()
        .filter_map(|line| match line {
            Line::Note { row, text } => Some((row, text)),
            _ => None,
        })
        .peekable();
    if notes.peek().is_some() {
        text += "\nNotes of the run:\n\n";
        for (row, note) in notes {
            writeln!(text, "- `{row}`: {note}.")?;
        }
    }
    Ok(text)
}

fn machine(text: &mut String, facts: &Value) -> Result<()> {
    let of = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    writeln!(
        text,
        "{}; {} ({} cores), {} MiB, Linux {}, {}; {}, commit {}; runs {}, seed {}.\n",
        of("date"),
        of("cpu"),
        facts["cores"],
        facts["memory_mib"],
        of("kernel"),
        of("file_system"),
        of("kiln"),
        of("commit"),
        facts["runs"],
        facts["seed"],
    )?;
    let peers = facts["peers"].as_object().context("the file names no peers")?;
    let peers: Vec<&str> = peers.values().filter_map(Value::as_str).collect();
    writeln!(text, "Peers: {}.\n", peers.join("; "))?;
    Ok(())
}

/// Who took part in a row: Kiln as it comes, its other flavours, then the peers, the best first.
fn contestants(lines: &[Line], row: &Row) -> Vec<(String, Summary)> {
    let mut names: Vec<&str> = Vec::new();
    for line in lines {
        if let Line::Sample { row: name, who, .. } = line
            && name == row.name
            && !names.contains(&who.as_str())
        {
            names.push(who);
        }
    }
    let mut all: Vec<(String, Summary)> = Vec::new();
    for name in names {
        let samples: Vec<f64> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Sample { row: of, who, value, .. } if of == row.name && who == name => {
                    Some(*value)
                }
                _ => None,
            })
            .collect();
        all.extend(
            summary(&samples, row.higher_is_better).map(|summary| (name.to_owned(), summary)),
        );
    }
    all.sort_by(|(a, x), (b, y)| {
        let worse = if row.higher_is_better { -1.0 } else { 1.0 };
        let place = |name: &str| (!name.starts_with("kiln"), name.starts_with("kiln,"));
        place(a).cmp(&place(b)).then((x.median * worse).total_cmp(&(y.median * worse)))
    });
    all
}

fn write_row(text: &mut String, row: &Row, contestants: &[(String, Summary)]) -> Result<()> {
    for (index, (name, summary)) in contestants.iter().enumerate() {
        let first = contestants[0].1.median;
        let ratio =
            if row.higher_is_better { first / summary.median } else { summary.median / first };
        let title =
            if index == 0 { format!("**{}**, {}", row.title, row.unit) } else { String::new() };
        let ratio = if index == 0 { String::new() } else { format!("{}×", number(ratio)) };
        let budget = if index == 0 { budget(row, summary) } else { String::new() };
        writeln!(
            text,
            "| {title} | {name} | {} | {} | {} | {ratio} | {budget} |",
            summary.count,
            number(summary.median),
            number(summary.tail),
        )?;
    }
    Ok(())
}

fn budget(row: &Row, summary: &Summary) -> String {
    let kept = |value: f64, budget: f64| {
        if row.higher_is_better { value >= budget } else { value <= budget }
    };
    let sign = if row.higher_is_better { "≥" } else { "≤" };
    let mut parts = Vec::new();
    for (what, value, budget) in
        [("", summary.median, row.budget), ("tail ", summary.tail, row.tail_budget)]
    {
        if let Some(budget) = budget {
            let verdict = if kept(value, budget) { "kept" } else { "**missed**" };
            parts.push(format!("{what}{sign} {budget}: {verdict}"));
        }
    }
    parts.join(", ")
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_begin_with_kiln_and_compare_with_it() {
        let sample = |who: &str, value: f64| Line::Sample {
            row: "create-api".to_owned(),
            who: who.to_owned(),
            value,
            at: 0.0,
            load: 0.0,
        };
        let lines = [sample("podman", 500.0), sample("kiln, x", 4.0), sample("kiln", 5.0)];
        let text = table(&lines).expect("it can be written");
        let rows: Vec<&str> = text.lines().filter(|line| line.contains(" | 1 | ")).collect();
        assert!(
            rows[0].contains("| kiln | 1 | 5.00 | 5.00 |  | ≤ 10: kept, tail ≤ 25: kept |"),
            "{text}"
        );
        assert!(rows[1].contains("| kiln, x | 1 | 4.00 | 4.00 | 0.80× |"), "{text}");
        assert!(rows[2].contains("| podman | 1 | 500 | 500 | 100× |"), "{text}");
    }
}
