//! Figures: a number of ours, the peer's, their ratio, and the target.

use std::fmt::Write as _;

use serde::Serialize;

/// What a figure has to satisfy.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Ours is at most this.
    AtMost(f64),
    /// Ours is at least this.
    AtLeast(f64),
    /// Ours divided by the peer's is at most this.
    RatioAtMost(f64),
    /// Ours divided by the peer's is at least this.
    RatioAtLeast(f64),
}

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) figure: String,
    /// In what unit.
    pub(crate) unit: String,
    /// Ours, the median over the runs.
    pub(crate) ours: f64,
    /// The peer's, the median over the runs.
    pub(crate) peer: Option<f64>,
    /// Who the peer is.
    pub(crate) peer_name: Option<String>,
    /// The median of the ratios of paired runs.
    pub(crate) ratio: Option<f64>,
    /// What is aimed for.
    pub(crate) target: Option<Target>,
    /// How many runs.
    pub(crate) runs: usize,
}

impl Figure {
    /// A figure of ours without a peer.
    pub(crate) fn alone(figure: &str, unit: &str, ours: &[f64], target: Option<Target>) -> Self {
        Self {
            figure: figure.to_owned(),
            unit: unit.to_owned(),
            ours: median(ours),
            peer: None,
            peer_name: None,
            ratio: None,
            target,
            runs: ours.len(),
        }
    }

    /// A figure next to a peer's; the slices hold the paired runs.
    pub(crate) fn paired(
        figure: &str,
        unit: &str,
        ours: &[f64],
        peer_name: &str,
        peer: &[f64],
        target: Option<Target>,
    ) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
        Self {
            peer: Some(median(peer)),
            peer_name: Some(peer_name.to_owned()),
            ratio: Some(median(&ratios)),
            ..Self::alone(figure, unit, ours, target)
        }
    }

    /// Whether the target is met; a figure without one always is.
    pub(crate) fn is_met(&self) -> bool {
        match (self.target, self.ratio) {
            (None, _) => true,
            (Some(Target::AtMost(limit)), _) => self.ours <= limit,
            (Some(Target::AtLeast(limit)), _) => self.ours >= limit,
            (Some(Target::RatioAtMost(limit)), Some(ratio)) => ratio <= limit,
            (Some(Target::RatioAtLeast(limit)), Some(ratio)) => ratio >= limit,
            (Some(Target::RatioAtMost(_) | Target::RatioAtLeast(_)), None) => false,
        }
    }
}

/// The median; of an even number of values the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The figures as a table for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    let width = figures.iter().map(|figure| figure.figure.len()).max().unwrap_or(0).max(6);
    let _ = writeln!(
        text,
        "{:width$}  {:>12} {:>12}  {:<28} {:>7}  {:<16} met",
        "figure", "ours", "peer", "peer's name", "ratio", "target"
    );
    for figure in figures {
        let peer = figure.peer.map_or_else(String::new, number);
        let ratio = figure.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let target = match figure.target {
            None => String::new(),
            Some(Target::AtMost(limit)) => format!("<= {}", number(limit)),
            Some(Target::AtLeast(limit)) => format!(">= {}", number(limit)),
            Some(Target::RatioAtMost(limit)) => format!("ratio <= {limit:.2}"),
            Some(Target::RatioAtLeast(limit)) => format!("ratio >= {limit:.2}"),
        };
        let met = if figure.target.is_none() {
            ""
        } else if figure.is_met() {
            "yes"
        } else {
            "NO"
        };
        let _ = writeln!(
            text,
            "{:width$}  {:>12} {:>12}  {:<28} {:>7}  {:<16} {met}",
            figure.figure,
            format!("{} {}", number(figure.ours), figure.unit),
            peer,
            figure.peer_name.as_deref().unwrap_or(""),
            ratio,
            target,
        );
    }
    text
}

/// One JSON object per figure and line.
pub(crate) fn json_lines(figures: &[Figure]) -> anyhow::Result<String> {
    figures.iter().map(|figure| Ok(serde_json::to_string(figure)? + "\n")).collect()
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_medians_of_pairs() {
        let figure = Figure::paired("x", "us", &[1.0, 9.0, 3.0], "p", &[2.0, 3.0, 3.0], Some(Target::RatioAtMost(1.0)));
        assert_eq!(figure.ratio, Some(1.0));
        assert!(figure.is_met());
        assert!(table(&[figure]).contains("yes"));
    }

    #[test]
    fn a_ratio_without_a_peer_is_not_met() {
        assert!(!Figure::alone("x", "us", &[1.0], Some(Target::RatioAtMost(9.0))).is_met());
    }
}
