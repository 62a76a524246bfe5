//! Medians and tails.

/// What the samples of one contestant in one row come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// How many samples there are.
    pub count: usize,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The 99th percentile (nearest rank); with fewer than 100 samples, the worst.
    pub tail: f64,
}

/// Summarises samples; `higher_is_better` decides which end is the tail. `None` when there are none.
pub(crate) fn summary(samples: &[f64], higher_is_better: bool) -> Option<Summary> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let upper = *sorted.get(count / 2)?;
    let median =
        if count.is_multiple_of(2) { f64::midpoint(sorted[count / 2 - 1], upper) } else { upper };
    if higher_is_better {
        sorted.reverse();
    }
    let rank = if count < 100 { count } else { (count * 99).div_ceil(100) };
    Some(Summary { count, median, tail: sorted[rank - 1] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middles_and_tails() {
        assert_eq!(summary(&[], false), None);
        let of = |samples: &[f64], higher| summary(samples, higher).expect("there are samples");
        assert_eq!(of(&[3.0, 1.0, 2.0], false), Summary { count: 3, median: 2.0, tail: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0], true), Summary { count: 4, median: 2.5, tail: 1.0 });
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(of(&hundred, false), Summary { count: 100, median: 50.5, tail: 99.0 });
        assert_eq!(of(&hundred, true), Summary { count: 100, median: 50.5, tail: 2.0 });
    }
}
