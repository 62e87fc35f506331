//! Reads variables by the table, and collects the faults on the way.
//!
//! A variable with a fault is noted, and something harmless stands in for its
//! value, so that reading goes on to the next one. What stands in is never
//! used: with a fault, there is no configuration.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use super::table::named;
use super::variables::{Fallback, Kind, Variable};
use super::{ConfigError, ConfigErrors, parse};

const OUT_OF_RANGE: &str = "is out of range";

/// What `Reader::quantity` gives: the text, and its value to compare.
type Quantity = (String, u128);

/// Looks variables up and remembers what was wrong with them.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// Starts without faults.
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Reader<'a> {
        Reader {
            lookup,
            errors: Vec::new(),
        }
    }

    /// Gives the result if there was no fault, and all the faults otherwise.
    pub(super) fn finish<T>(self, result: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(result)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    /// A setting that is text and has a value in any case.
    pub(super) fn word(&mut self, name: &str) -> String {
        self.optional_word(name).unwrap_or_default()
    }

    /// A setting that is text, if it has a value.
    pub(super) fn optional_word(&mut self, name: &str) -> Option<String> {
        let variable = named(name);
        self.read(variable, |value| word(variable.kind, value))
    }

    /// A user name of HTTP Basic, where a colon would end it.
    pub(super) fn username(&mut self, name: &str) -> Option<String> {
        self.read(named(name), |value| match value.contains(':') {
            true => Err("contains a colon, which ends a user name"),
            false => parse::text(value),
        })
    }

    /// A setting that is a number and has a value in any case.
    pub(super) fn number<T: TryFrom<i64> + Default>(&mut self, name: &str) -> T {
        self.optional_number(name).unwrap_or_default()
    }

    /// A setting that is a number, if it has a value.
    pub(super) fn optional_number<T: TryFrom<i64>>(&mut self, name: &str) -> Option<T> {
        let variable = named(name);
        self.read(variable, |value| -> Result<T, &'static str> {
            let number = parse::integer(value)?;
            in_range(variable.kind, number)?;
            T::try_from(number).map_err(|_| OUT_OF_RANGE)
        })
    }

    /// A user or group; -1 says none, as no value does.
    pub(super) fn id(&mut self, name: &str) -> Option<i64> {
        self.optional_number(name).filter(|id| *id >= 0)
    }

    /// A setting that is a duration and has a value in any case.
    pub(super) fn duration(&mut self, name: &str) -> Duration {
        let variable = named(name);
        self.read(variable, |value| -> Result<Duration, &'static str> {
            let duration = parse::duration(value)?;
            match variable.kind {
                Kind::Duration { min, max } if !(min..=max).contains(&duration) => {
                    Err(OUT_OF_RANGE)
                }
                _ => Ok(duration),
            }
        })
        .unwrap_or_default()
    }

    /// A setting that is true or false.
    pub(super) fn boolean(&mut self, name: &str) -> bool {
        self.read(named(name), parse::boolean).unwrap_or_default()
    }

    /// A setting that is a list of names.
    pub(super) fn names(&mut self, name: &str) -> Vec<String> {
        self.read(named(name), parse::names).unwrap_or_default()
    }

    /// A setting that is a list of queues, if it has a value.
    pub(super) fn queues(&mut self, name: &str) -> Option<Vec<String>> {
        let variable = named(name);
        self.read(variable, |value| match variable.kind {
            Kind::Queues(known) => parse::queues(value, known),
            _ => Err("is of another kind".to_owned()),
        })
    }

    /// A setting that is pairs of a key and a value.
    pub(super) fn pairs(&mut self, name: &str) -> BTreeMap<String, String> {
        self.read(named(name), parse::pairs).unwrap_or_default()
    }

    /// A setting that is JSON, by the function that understands it.
    pub(super) fn json<T: Default>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.read(named(name), parse).unwrap_or_default()
    }

    /// Registries and the credentials for them.
    pub(super) fn registries(&mut self, name: &str) -> Map<String, Value> {
        self.read(named(name), parse::registries)
            .unwrap_or_default()
    }

    /// Whether any name of a setting has a value, be it a good one or not.
    pub(super) fn is_set(&self, name: &str) -> bool {
        !self.set_values(named(name)).is_empty()
    }

    /// Notes that a variable, in the name by which it is set, does not fit
    /// with the others.
    pub(super) fn contradiction(&mut self, name: &str, problem: &str) {
        let variable = named(name);
        let set = self.set_values(variable);
        let name = set.first().map_or(variable.names[0], |(name, _)| *name);
        self.note(variable, format!("{name} {problem}"));
    }

    /// The limit of a resource and the request for it; zero leaves one out.
    ///
    /// A request that nobody set follows a lower limit down, as it does in
    /// Kubernetes itself; one that somebody set is a fault.
    pub(super) fn limit_and_request(
        &mut self,
        limit_name: &str,
        request_name: &str,
    ) -> (Option<String>, Option<String>) {
        let limit = self.quantity(limit_name);
        let mut request = self.quantity(request_name);
        if let (Some((limit_text, most)), Some((request_text, asked))) = (&limit, &request)
            && asked > most
        {
            let variable = named(request_name);
            match self.set_values(variable).first() {
                None => request = limit.clone(),
                Some(_) => self.contradiction(
                    request_name,
                    &format!(
                        "must not be larger than {limit_name} ({request_text} is more than \
                         {limit_text})"
                    ),
                ),
            }
        }
        (limit.map(|(text, _)| text), request.map(|(text, _)| text))
    }

    /// A quantity, if it has a value other than zero.
    fn quantity(&mut self, name: &str) -> Option<Quantity> {
        self.read(named(name), |value| {
            parse::quantity(value).map(|amount| (value.to_owned(), amount))
        })
        .filter(|(_, amount)| *amount > 0)
    }

    /// Reads one variable: its value if it is set, else its default.
    fn read<T, Problem: Display>(
        &mut self,
        variable: &'static Variable,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let allowed = variable.kind.allowed();
        let set = self.set_values(variable);
        let Some((name, value)) = set.first() else {
            return match variable.default {
                Fallback::Value(value) => parse(value).ok(),
                Fallback::Unset => None,
                Fallback::Required => {
                    let name = variable.names[0];
                    self.note(
                        variable,
                        format!("{name} must be {allowed} (it is not set)"),
                    );
                    None
                }
            };
        };
        if let Some((other, differing)) = set.iter().find(|(_, other)| other != value) {
            let values = match variable.kind.is_shown() {
                true => format!(" ({value:?} and {differing:?})"),
                false => String::new(),
            };
            self.note(
                variable,
                format!(
                    "{name} and {other} mean the same and must not differ{values}; set only one"
                ),
            );
            return None;
        }
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                let shown = match variable.kind.is_shown() {
                    true => format!(" {value:?}"),
                    false => String::new(),
                };
                self.note(
                    variable,
                    format!("{name} must be {allowed} (its value{shown} {problem})"),
                );
                None
            }
        }
    }

    /// The names of a variable that are set, with their values. The released
    /// Helm chart sets many to the empty string and means that they are not.
    fn set_values(&self, variable: &Variable) -> Vec<(&'static str, String)> {
        variable
            .names
            .iter()
            .filter_map(|name| Some((*name, (self.lookup)(name)?)))
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }

    fn note(&mut self, variable: &'static Variable, message: String) {
        self.errors.push(ConfigError {
            variable: variable.names[0],
            message,
        });
    }
}

/// Reads what ends up as text, each kind by its rules.
fn word(kind: Kind, value: &str) -> Result<String, &'static str> {
    match kind {
        Kind::Choice(words) if words.contains(&value) => Ok(value.to_owned()),
        Kind::Choice([_]) => Err("is not"),
        Kind::Choice(_) => Err("is none of them"),
        Kind::Url => parse::base_url(value),
        Kind::Secret => parse::secret(value),
        Kind::Namespace => parse::namespace(value),
        Kind::Name => parse::name(value),
        Kind::Image => parse::image(value),
        Kind::Quantity => match parse::quantity(value)? {
            0 => Err("is zero"),
            _ => Ok(value.to_owned()),
        },
        Kind::Address => parse::address(value),
        _ => parse::text(value),
    }
}

/// Checks a number against the range of its kind.
fn in_range(kind: Kind, number: i64) -> Result<(), &'static str> {
    match kind {
        Kind::Integer { min, max } if !(min..=max).contains(&number) => Err(OUT_OF_RANGE),
        _ => Ok(()),
    }
}
