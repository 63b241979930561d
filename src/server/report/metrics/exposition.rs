//! Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::{Display, Write};

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page in progress.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// The type of a family of samples.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Can rise and fall.
    Gauge,
}

/// A family in progress.
pub(super) struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family; all its samples must be written before the next family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            page: &mut self.0,
            name,
        }
    }

    /// Writes a family with one sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// Returns the whole page.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Writes one sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.page.push_str(self.name);
        for (index, (name, text)) in labels.iter().enumerate() {
            self.page.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.page, "{name}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.page.push_str("\\\\"),
                    '"' => self.page.push_str("\\\""),
                    '\n' => self.page.push_str("\\n"),
                    other => self.page.push(other),
                }
            }
            self.page.push('"');
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = Exposition::default();
        page.single("up", Kind::Gauge, "One.", 1);
        let mut family = page.family("seen_total", Kind::Counter, "Seen.");
        family.sample(&[("user", "a\\b\"c\nd} 1"), ("way", "ä")], 2.5);
        assert_eq!(
            page.finish(),
            "# HELP up One.\n# TYPE up gauge\nup 1\n\
             # HELP seen_total Seen.\n# TYPE seen_total counter\n\
             seen_total{user=\"a\\\\b\\\"c\\nd} 1\",way=\"ä\"} 2.5\n"
        );
    }
}
