//! Reads the rules of a table as `iptables -S` lists them.

use super::Ruleset;
use super::packet::{Addresses, Test};
use super::rules::{Action, Chain, Policy, Rule, Step, Table, is_own};

/// Lines that are read, at most.
const MOST: usize = 100_000;

/// Reads a listing; the chain FORWARD is the one at the hook.
pub(super) fn parse(ruleset: Ruleset, table: &str, listing: &str) -> Table {
    let mut read = Table {
        ruleset,
        name: table.to_owned(),
        chains: Default::default(),
    };
    for line in listing.lines().take(MOST) {
        let Some((command, rest)) = line.trim_end().split_once(' ') else {
            continue;
        };
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match command {
            "-P" | "-N" => {
                let policy = match rest {
                    "DROP" => Policy::Drop,
                    _ => Policy::Accept,
                };
                let at_hook = command == "-P" && name == "FORWARD";
                let chain = read.chains.entry(name.to_owned()).or_default();
                chain.base = at_hook.then_some(policy);
            }
            "-A" => {
                if let Some(rule) = rule(&words(rest)) {
                    let chain: &mut Chain = read.chains.entry(name.to_owned()).or_default();
                    chain.rules.push(rule);
                }
            }
            _ => {}
        }
    }
    read
}

/// The words of a rule; those in quotes have backslashes in front of quotes and backslashes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// One rule; `None` for one of ours.
fn rule(words: &[String]) -> Option<Rule> {
    let mut words = words.iter().map(String::as_str);
    let mut steps = Vec::new();
    let mut negated = false;
    while let Some(word) = words.next() {
        let test = match word {
            "!" => {
                negated = true;
                continue;
            }
            "-j" => {
                steps.push(Step::Do(target(words.next()?)));
                // The rest are options of the target.
                break;
            }
            "-g" => {
                steps.push(Step::Do(Action::Goto(words.next()?.to_owned())));
                break;
            }
            "-m" => {
                words.next();
                continue;
            }
            "--comment" => {
                if is_own(words.next()?) {
                    return None;
                }
                continue;
            }
            "-i" => Test::In(interface(words.next()?)),
            "-o" => Test::Out(interface(words.next()?)),
            "-s" => Test::Source(addresses(words.next()?)),
            "-d" => Test::Destination(addresses(words.next()?)),
            "--ctstate" | "--state" => state(words.next()?),
            option if option.starts_with('-') => Test::Unknown,
            // The value of an option that is not judged.
            _ => continue,
        };
        steps.push(Step::Test(test.negated(negated)));
        negated = false;
    }
    Some(steps)
}

fn interface(name: &str) -> Vec<String> {
    vec![match name.strip_suffix('+') {
        Some(beginning) => format!("{beginning}*"),
        None => name.to_owned(),
    }]
}

fn addresses(list: &str) -> Addresses {
    let mut addresses = Addresses::default();
    for one in list.split(',') {
        addresses.add(one);
    }
    addresses
}

fn state(list: &str) -> Test {
    let has = |state: &str| list.split(',').any(|one| one == state);
    // An unknown state, such as SNAT, may be that of any packet.
    if list.split(',').any(|one| matches!(one, "SNAT" | "DNAT")) {
        return Test::Unknown;
    }
    Test::State {
        new: has("NEW"),
        established: has("ESTABLISHED"),
    }
}

fn target(name: &str) -> Action {
    match name {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        // Another target, such as LOG, lets the packet go on, as a chain that does not exist does.
        _ => Action::Jump(name.to_owned()),
    }
}
