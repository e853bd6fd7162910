//! Reading query strings: every wrong parameter is named, all at once; unknown ones are ignored as in the published API.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use actix_web::web;
use overstory_store::PageRequest;

use crate::error::ApiError;

/// More parameters than any route has are refused.
const MAX_PARAMETERS: usize = 64;
/// The longest value that is read, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// The parameters of a request and what is wrong with them.
#[derive(Debug)]
pub(crate) struct Parameters {
    pairs: Vec<(String, String)>,
    errors: BTreeMap<String, String>,
}

impl Parameters {
    /// Takes a query string apart.
    pub(crate) fn new(query: &str) -> Result<Self, ApiError> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| ApiError::bad_request("The query string is malformed"))?
            .into_inner();
        if pairs.len() > MAX_PARAMETERS {
            return Err(ApiError::bad_request("There are too many parameters"));
        }
        Ok(Self { pairs, errors: BTreeMap::new() })
    }

    /// Notes that `name` is wrong.
    pub(crate) fn refuse(&mut self, name: &str, message: impl Display) {
        self.errors.entry(name.to_owned()).or_insert_with(|| message.to_string());
    }

    /// Succeeds when nothing was wrong.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }

    /// Whether `name` is there with a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, value)| key == name && !value.is_empty())
    }

    /// The text of `name`; empty counts as absent.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())?;
        if value.len() > MAX_VALUE_BYTES {
            self.refuse(name, format_args!("has more than {MAX_VALUE_BYTES} bytes"));
            return None;
        }
        (!value.is_empty()).then_some(value)
    }

    /// Every value of `name`, given more than once (`name` or `name[]`) or separated by commas.
    pub(crate) fn list(&mut self, name: &str) -> Vec<String> {
        let long_name = format!("{name}[]");
        let values = self.pairs.iter().filter(|(key, _)| key == name || *key == long_name);
        let values = values.flat_map(|(_, value)| value.split(','));
        values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// A number within `range`.
    pub(crate) fn number<N: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        name: &str,
        range: RangeInclusive<N>,
    ) -> Option<N> {
        let text = self.text(name)?;
        match text.parse::<N>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.refuse(name, format_args!("has to be a number from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.text(name)?.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => {
                self.refuse(name, "has to be true or false");
                None
            }
        }
    }

    /// One of the words of `choices`.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(name, format_args!("has to be one of {}", words.join(", ")));
        }
        found
    }

    /// `page`, `limit` and `paginate`.
    pub(crate) fn page(&mut self) -> PageRequest {
        PageRequest {
            page: self.number("page", 1..=1_000_000).unwrap_or(1),
            limit: self.number("limit", 1..=1000).unwrap_or(10),
            paginate: self.boolean("paginate").unwrap_or(true),
        }
    }

    /// `sort`: whether the greatest come first.
    pub(crate) fn descending(&mut self, default: bool) -> bool {
        self.choice("sort", &[("asc", false), ("desc", true)]).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn every_wrong_parameter_is_named() {
        let mut query = Parameters::new("page=0&limit=x&paginate=maybe&sort=up&search=").unwrap();
        query.page();
        query.descending(false);
        assert_eq!(query.text("search"), None);
        let error = query.finish().unwrap_err().to_string();
        assert_eq!(
            error,
            "limit: has to be a number from 1 to 1000, page: has to be a number from 1 to 1000000, \
             paginate: has to be true or false, sort: has to be one of asc, desc"
        );
    }

    #[test]
    fn absent_parameters_have_the_published_defaults() {
        let mut query = Parameters::new("unknown=1").unwrap();
        assert_eq!(query.page(), PageRequest { page: 1, limit: 10, paginate: true });
        query.finish().unwrap();
    }

    #[test]
    fn lists_come_in_three_forms() {
        let mut query = Parameters::new("state=1,2&state=3&state[]=0").unwrap();
        assert_eq!(query.list("state"), ["1", "2", "3", "0"]);
    }
}
