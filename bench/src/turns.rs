//! Whose turn it is: contestants are interleaved, so that noise hits all of them.

use anyhow::{Context as _, Result};

use crate::interrupt;
use crate::record::Recorder;

/// How long one turn of a contestant takes, which decides how many it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Below about 20 ms.
    Low,
    /// Below about 100 ms.
    Middle,
    /// Below about 1 s.
    High,
    /// Seconds.
    Extreme,
}

impl Cost {
    /// Turns of a contestant when the cheapest get `runs`.
    pub(crate) const fn turns(self, runs: u32) -> u32 {
        let (divisor, least) = match self {
            Self::Low => (1, 2),
            Self::Middle => (4, 2),
            Self::High => (12, 2),
            Self::Extreme => (40, 1),
        };
        let turns = runs.div_ceil(divisor);
        if turns < least { least } else { turns }
    }
}

/// Somebody who takes turns in a row.
pub(crate) struct Contestant<'a> {
    /// What it is called in the table.
    pub name: String,
    /// How long a turn takes.
    pub cost: Cost,
    /// One turn: does the thing, checks that it was done, and answers what it measured.
    pub turn: Box<dyn FnMut() -> Result<Measured> + 'a>,
}

/// What a turn measured: a value in the unit of the row, and values of other rows that fell off on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// For the row whose turn it was.
    pub value: f64,
    /// For others, by name.
    pub also: Vec<(&'static str, f64)>,
}

impl From<f64> for Measured {
    fn from(value: f64) -> Self {
        Self { value, also: Vec::new() }
    }
}

impl<'a> Contestant<'a> {
    /// A contestant whose turns answer a number or a [`Measured`].
    pub(crate) fn new<M: Into<Measured>>(
        name: impl Into<String>,
        cost: Cost,
        mut turn: impl FnMut() -> Result<M> + 'a,
    ) -> Self {
        Self { name: name.into(), cost, turn: Box::new(move || turn().map(Into::into)) }
    }
}

/// Lets all contestants take their turns, spread evenly over the row and in random order, after one turn
/// each that is not counted.
pub(crate) fn take(
    recorder: &mut Recorder,
    row: &str,
    mut contestants: Vec<Contestant<'_>>,
) -> Result<()> {
    for contestant in &mut contestants {
        interrupt::check()?;
        let name = contestant.name.clone();
        (contestant.turn)().with_context(|| format!("{row}: the first turn of {name}"))?;
    }
    let turns: Vec<u32> = contestants.iter().map(|c| c.cost.turns(recorder.runs())).collect();
    for index in order(&turns, recorder.random()) {
        interrupt::check()?;
        let contestant = &mut contestants[index];
        let measured =
            (contestant.turn)().with_context(|| format!("{row}: a turn of {}", contestant.name))?;
        recorder.sample(row, &contestant.name, measured.value)?;
        for (other, value) in measured.also {
            recorder.sample(other, &contestant.name, value)?;
        }
    }
    Ok(())
}

/// The indexes of contestants in the order of their turns. Each one's turns are spread evenly, and lie
/// anywhere within their own stretch of the whole.
fn order(turns: &[u32], random: &mut fastrand::Rng) -> Vec<usize> {
    let mut places: Vec<(f64, usize)> = Vec::new();
    for (index, &count) in turns.iter().enumerate() {
        for turn in 0..count {
            places.push(((f64::from(turn) + random.f64()) / f64::from(count), index));
        }
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    places.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_turns_are_taken_and_spread() {
        let order = order(&[100, 10, 1], &mut fastrand::Rng::with_seed(7));
        for (index, count) in [(0, 100), (1, 10), (2, 1)] {
            assert_eq!(order.iter().filter(|&&i| i == index).count(), count);
        }
        let half = &order[..order.len() / 2];
        let slow = half.iter().filter(|&&index| index == 1).count();
        assert!((4..=6).contains(&slow), "{slow} of 10 turns are in the first half");
    }

    #[test]
    fn slower_contestants_get_fewer_turns() {
        let costs = [Cost::Low, Cost::Middle, Cost::High, Cost::Extreme];
        assert_eq!(costs.map(|cost| cost.turns(200)), [200, 50, 17, 5]);
        assert_eq!(costs.map(|cost| cost.turns(1)), [2, 2, 2, 1]);
    }
}
