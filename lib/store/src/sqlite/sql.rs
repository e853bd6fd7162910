//! Putting questions together.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// The conditions of a question and their values.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    text: String,
    values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition; each `?` in it stands for one of `values`.
    pub(super) fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.text.push_str(if self.text.is_empty() { " WHERE " } else { " AND " });
        self.text.push_str(condition);
        self.values.extend(values);
    }

    /// Adds: one of `columns` contains `text`, letter case aside (ASCII).
    pub(super) fn and_contains(&mut self, columns: &[&str], text: &str) {
        let tests: Vec<String> = columns.iter().map(|column| format!("{column} LIKE ? ESCAPE '\\'")).collect();
        let pattern = Value::Text(contains_pattern(text));
        self.and(&format!("({})", tests.join(" OR ")), columns.iter().map(|_| pattern.clone()));
    }

    /// Adds: `column` is one of `values`, if there are any.
    pub(super) fn and_any_of(&mut self, column: &str, values: impl IntoIterator<Item = Value>) {
        let values: Vec<Value> = values.into_iter().collect();
        if !values.is_empty() {
            let marks = vec!["?"; values.len()].join(", ");
            self.and(&format!("{column} IN ({marks})"), values);
        }
    }
}

/// Asks for the rows of `columns FROM source` that fulfil `conditions`, and how many there are in all.
pub(super) fn select_page<T>(
    connection: &Connection,
    columns: &str,
    source: &str,
    conditions: &Conditions,
    order: &str,
    page: PageRequest,
    make: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let Conditions { text, values } = conditions;
    let total = connection
        .prepare_cached(&format!("SELECT count(*) FROM {source}{text}"))?
        .query_row(params_from_iter(values), |row| row.get(0))?;
    let (offset, limit) = page.offset_and_limit();
    let question = format!("SELECT {columns} FROM {source}{text} ORDER BY {order} LIMIT {limit} OFFSET {offset}");
    // Not cached: the numbers differ from page to page.
    let mut statement = connection.prepare(&question)?;
    let items = collect(statement.query(params_from_iter(values))?, make)?;
    Ok(Page { items, total })
}

/// Makes a value of each row.
pub(super) fn collect<T>(
    mut rows: rusqlite::Rows<'_>,
    mut make: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(make(row)?);
    }
    Ok(items)
}

fn contains_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_search_stand_for_themselves() {
        assert_eq!(contains_pattern(r"5%_\"), r"%5\%\_\\%");
    }
}
