//! Keywords and their values, as `ssh -G` prints them and as our own parser of ssh_config returns
//! them.

use std::collections::BTreeMap;

/// Values by keyword. Keywords are in lower case; values are in the order in which ssh uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshValues {
    values: BTreeMap<String, Vec<String>>,
}

impl SshValues {
    /// All values of `key`; empty if it is not set.
    pub fn all(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// The first value of `key`.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.all(key).first().map(String::as_str)
    }

    /// Whether `key` is set.
    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Replaces the values of `key`.
    pub fn set(&mut self, key: &str, values: Vec<String>) {
        self.values.insert(key.to_owned(), values);
    }

    /// Adds one value to those of `key`.
    pub fn push(&mut self, key: &str, value: String) {
        self.values.entry(key.to_owned()).or_default().push(value);
    }

    /// Lines of a keyword and a value each; the values of `lists` are on one line.
    pub fn to_lines(&self, lists: &[&str]) -> String {
        let mut text = String::new();
        for (key, values) in &self.values {
            let values = match lists.contains(&key.as_str()) {
                true => vec![values.join(" ")],
                false => values.clone(),
            };
            for value in values {
                text.push_str(&format!("{key} {value}\n"));
            }
        }
        text
    }

    /// Copies the values of `other` that are not set here.
    pub fn fill_from(&mut self, other: &SshValues) {
        for (key, values) in &other.values {
            if !self.values.contains_key(key) {
                self.values.insert(key.clone(), values.clone());
            }
        }
    }
}

impl<K: Into<String>, const N: usize> From<[(K, Vec<String>); N]> for SshValues {
    fn from(pairs: [(K, Vec<String>); N]) -> Self {
        Self {
            values: pairs.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        }
    }
}
