//! Prometheus' text format (version 0.0.4). Written here because LiveKit's counters do not all end
//! in `_total`, which OpenMetrics demands and its libraries append.

use std::fmt::{Display, Write};

/// Type of a metric, as `# TYPE` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A scrape's answer while it is written. Samples follow the family they belong to.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    name: String,
    /// Labels of every sample, already written: `node_id="…",node_type="…"`.
    constant: String,
}

impl Exposition {
    /// An empty answer whose samples all carry `labels`.
    pub(crate) fn new(labels: &[(&str, &str)]) -> Self {
        let mut constant = String::new();
        write_labels(&mut constant, labels);
        Self { constant, ..Self::default() }
    }

    /// The answer.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Starts a family of samples.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        name.clone_into(&mut self.name);
        let help = help.replace('\\', "\\\\").replace('\n', " ");
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.as_str());
    }

    /// One sample of the family.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// A counter without labels of its own.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help);
        self.sample(&[], value);
    }

    /// A gauge without labels of its own.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.sample(&[], value);
    }

    /// One histogram of the family: counts per bucket (the last one without an upper bound).
    pub(crate) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        let mut total = 0;
        for (index, count) in counts.iter().enumerate() {
            total += count;
            let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.line("_bucket", &[labels, &[("le", bound.as_str())]].concat(), total);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, total);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        if !self.constant.is_empty() || !labels.is_empty() {
            self.text.push('{');
            self.text.push_str(&self.constant);
            if !self.constant.is_empty() && !labels.is_empty() {
                self.text.push(',');
            }
            write_labels(&mut self.text, labels);
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn write_labels(text: &mut String, labels: &[(&str, &str)]) {
    for (index, (name, value)) in labels.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_carry_constant_and_own_labels() {
        let mut page = Exposition::new(&[("node_id", "ND_1")]);
        page.gauge("a", "How many", 3);
        page.family("b_total", Kind::Counter, "With labels");
        page.sample(&[("reason", "\"x\\\n")], 0.5);
        let expected = "# HELP a How many\n# TYPE a gauge\na{node_id=\"ND_1\"} 3\n\
            # HELP b_total With labels\n# TYPE b_total counter\n\
            b_total{node_id=\"ND_1\",reason=\"\\\"x\\\\\\n\"} 0.5\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_infinity() {
        let mut page = Exposition::new(&[]);
        page.family("h", Kind::Histogram, "");
        page.histogram(&[], &[1.0, 2.5], &[1, 0, 2], 9.0);
        let text = page.into_text();
        for line in [
            "h_bucket{le=\"1\"} 1",
            "h_bucket{le=\"2.5\"} 1",
            "h_bucket{le=\"+Inf\"} 3",
            "h_sum 9",
            "h_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
