//! Collects the values of active lines: the first one applies, except for keywords whose values add
//! up.

use tracing::{debug, warn};

use super::keywords::{self, Kind};
use super::line::Line;
use crate::config::ssh::destination::parse_jump_list;
use crate::config::ssh::pattern::{matches_list, matches_pattern};
use crate::config::ssh::values::SshValues;

/// ssh's limit of values per keyword that adds up.
const MAX_VALUES: usize = 1024;

/// The values that have been set so far.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// By the keywords of `ssh -G`.
    pub values: SshValues,
}

impl Collected {
    /// Sets `key` if it is not set yet.
    pub fn set_first(&mut self, key: &str, values: Vec<String>) {
        if !self.values.contains(key) {
            self.values.set(key, values);
        }
    }

    /// Adds `value` to those of `key`, unless it is one of them.
    pub fn add(&mut self, key: &str, value: String) -> Result<(), String> {
        if self.values.all(key).len() >= MAX_VALUES {
            return Err(format!("{key}: more than {MAX_VALUES} values"));
        }
        if !self.values.all(key).contains(&value) {
            self.values.push(key, value);
        }
        Ok(())
    }

    /// Whether the keyword of `line` is Host, Match or Include. The error is an unknown keyword.
    pub fn kind(&self, line: &Line) -> Result<Option<Kind>, String> {
        if let Some((_, kind)) = keywords::look_up(&line.keyword) {
            return Ok(Some(kind));
        }
        let ignored = self.values.first("ignoreunknown").unwrap_or_default();
        if matches_list(&line.keyword, &ignored.to_ascii_lowercase()) {
            debug!("ignoring {}, as IgnoreUnknown asks", line.keyword);
            return Ok(None);
        }
        Err(format!("unknown option {}", line.keyword))
    }

    /// Applies `line` if `active`; checks its form in any case.
    pub fn apply(&mut self, line: &Line, active: bool) -> Result<(), String> {
        let Some((key, kind)) = keywords::look_up(&line.keyword) else {
            return Ok(());
        };
        match kind {
            Kind::Word => {
                let word = line.only_word()?.to_owned();
                self.set_if(active, key, vec![word]);
            }
            Kind::Words => {
                let words = line.some_words()?.to_vec();
                self.set_if(active, key, words);
            }
            Kind::Command => self.command(line, key, active),
            Kind::ProxyJump => self.proxy_jump(line.command(), active)?,
            Kind::EachWord => {
                let word = line.only_word()?.to_owned();
                if active {
                    self.add(key, word)?;
                }
            }
            Kind::EachLine => {
                let words = line.some_words()?.join(" ");
                if active {
                    self.add(key, words)?;
                }
            }
            Kind::SendEnv => self.send_env(line.some_words()?, active)?,
            Kind::SetEnv => self.set_env(line.some_words()?, active)?,
            Kind::Refuse => {
                let message = line.only_word()?;
                if active {
                    return Err(format!("RefuseConnection: {message}"));
                }
            }
            Kind::Deprecated => debug!("{} is deprecated and has no effect", line.keyword),
            Kind::Unsupported => warn!("{} is not supported", line.keyword),
            Kind::Structure => return Err(format!("{} is not allowed here", line.keyword)),
        }
        Ok(())
    }

    fn set_if(&mut self, active: bool, key: &str, values: Vec<String>) {
        if active {
            self.set_first(key, values);
        }
    }

    fn command(&mut self, line: &Line, key: &str, active: bool) {
        // The first of ProxyCommand and ProxyJump applies, except that `ProxyJump none` excludes
        // only later ProxyJumps.
        let jump = self.values.first("proxyjump");
        let jumps = jump.is_some_and(|list| !list.eq_ignore_ascii_case("none"));
        let shadowed = key == "proxycommand" && jumps;
        self.set_if(active && !shadowed, key, vec![line.command().to_owned()]);
    }

    /// Applies `ProxyJump` or `-J`.
    pub fn proxy_jump(&mut self, list: &str, active: bool) -> Result<(), String> {
        let list = list.split('#').next().unwrap_or_default().trim_end();
        parse_jump_list(list).map_err(|error| error.to_string())?;
        if active && !self.values.contains("proxycommand") {
            self.set_first("proxyjump", vec![list.to_owned()]);
        }
        Ok(())
    }

    fn send_env(&mut self, words: &[String], active: bool) -> Result<(), String> {
        for word in words {
            if word.contains('=') {
                return Err(format!("{word} is not the name of an environment variable"));
            }
            if !active {
                continue;
            }
            match word.strip_prefix('-') {
                Some(pattern) => {
                    let mut names = self.values.all("sendenv").to_vec();
                    names.retain(|name| !matches_pattern(name, pattern));
                    self.values.set("sendenv", names);
                }
                None => self.add("sendenv", word.clone())?,
            }
        }
        Ok(())
    }

    fn set_env(&mut self, words: &[String], active: bool) -> Result<(), String> {
        let mut pairs: Vec<String> = Vec::new();
        for word in words {
            let (name, _) = word
                .split_once('=')
                .ok_or_else(|| format!("{word} is not NAME=VALUE"))?;
            let same = |pair: &String| pair.split_once('=').is_some_and(|(other, _)| other == name);
            if !pairs.iter().any(same) {
                pairs.push(word.clone());
            }
        }
        self.set_if(active, "setenv", pairs);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(lines: &[&str]) -> Result<SshValues, String> {
        let mut collected = Collected::default();
        for line in lines {
            let line = Line::parse(line)?.ok_or("empty")?;
            collected.kind(&line)?;
            collected.apply(&line, true)?;
        }
        Ok(collected.values)
    }

    #[test]
    fn first_wins_and_some_add_up() {
        let values = collect(&[
            "User a",
            "User b",
            "IdentityFile x",
            "IdentityFile y",
            "IdentityFile x",
            "UserKnownHostsFile p \"q r\"",
            "UserKnownHostsFile s",
            "SetEnv A=1 A=2 B=3",
            "SetEnv C=4",
            "DSAAuthentication no",
        ])
        .unwrap();
        assert_eq!(values.all("user"), ["a"]);
        assert_eq!(values.all("identityfile"), ["x", "y"]);
        assert_eq!(values.all("userknownhostsfile"), ["p", "q r"]);
        assert_eq!(values.all("setenv"), ["A=1", "B=3"]);
        assert_eq!(values.all("pubkeyauthentication"), ["no"]);
    }

    #[test]
    fn sent_variables_can_be_taken_away() {
        let values = collect(&["SendEnv LANG LC_* TZ", "SendEnv -L*", "SendEnv X"]).unwrap();
        assert_eq!(values.all("sendenv"), ["TZ", "X"]);
    }

    #[test]
    fn the_first_proxy_stands() {
        let jump = collect(&["ProxyJump a,b # c", "ProxyCommand nc"]).unwrap();
        assert_eq!(jump.first("proxyjump"), Some("a,b"));
        assert_eq!(jump.first("proxycommand"), None);
        let command = collect(&["ProxyCommand nc", "ProxyJump a"]).unwrap();
        assert_eq!(command.first("proxyjump"), None);
        let none = collect(&["ProxyJump none", "ProxyCommand nc", "ProxyJump a"]).unwrap();
        assert_eq!(none.first("proxycommand"), Some("nc"));
        assert_eq!(none.first("proxyjump"), Some("none"));
    }

    #[test]
    fn bad_lines_are_errors_also_where_they_do_not_apply() {
        for wrong in [
            "Foo x",
            "User a b",
            "SendEnv A=1",
            "SetEnv A",
            "ProxyJump a:x",
            "Host x",
        ] {
            assert!(collect(&[wrong]).is_err(), "{wrong}");
        }
        let line = Line::parse("User a b").unwrap().unwrap();
        assert!(Collected::default().apply(&line, false).is_err());
        let refusal = Line::parse("RefuseConnection \"use the new one\"")
            .unwrap()
            .unwrap();
        assert!(Collected::default().apply(&refusal, false).is_ok());
        let refused = Collected::default().apply(&refusal, true).unwrap_err();
        assert_eq!(refused, "RefuseConnection: use the new one");
        assert!(collect(&["IgnoreUnknown f*,BAR", "Foo x y z", "bar x"]).is_ok());
    }
}
