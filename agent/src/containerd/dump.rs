//! What `containerd config dump` prints, as plain values.

use serde_json::{Map, Value};
use toml_edit::Item;

use super::{ConfigError, file, parse};

/// Reads a dump. `config` is the file that it was made of: containerd names it
/// among what it imported, in no order.
pub(crate) fn read(text: &str, config: &str) -> Result<Map<String, Value>, ConfigError> {
    let document = parse(text)?;
    let mut values: Map<String, Value> =
        document.iter().map(|(key, item)| (key.to_owned(), value_of(item))).collect();
    if let Some(imports) = values.get_mut("imports").and_then(Value::as_array_mut) {
        imports.retain(|path| path.as_str() != Some(config) && *path != file::path());
        imports.sort_by_key(ToString::to_string);
        if imports.is_empty() {
            values.remove("imports");
        }
    }
    Ok(values)
}

/// What containerd imports where there is no configuration.
pub(crate) fn imports(dump: &Map<String, Value>) -> Vec<String> {
    let imports = dump.get("imports").and_then(Value::as_array);
    imports.into_iter().flatten().filter_map(|path| Some(path.as_str()?.to_owned())).collect()
}

fn value_of(item: &Item) -> Value {
    if let Some(table) = item.as_table_like() {
        return table.iter().map(|(key, item)| (key.to_owned(), value_of(item))).collect();
    }
    if let Some(tables) = item.as_array_of_tables() {
        let object = |table: &toml_edit::Table| {
            Value::Object(
                table.iter().map(|(key, item)| (key.to_owned(), value_of(item))).collect(),
            )
        };
        return tables.iter().map(object).collect();
    }
    item.as_value().map_or(Value::Null, plain)
}

fn plain(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Float(number) => (*number.value()).into(),
        toml_edit::Value::Boolean(value) => (*value.value()).into(),
        toml_edit::Value::Datetime(time) => Value::String(time.value().to_string()),
        toml_edit::Value::Array(items) => items.iter().map(plain).collect(),
        toml_edit::Value::InlineTable(table) => {
            Value::Object(table.iter().map(|(key, value)| (key.to_owned(), plain(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dump_is_read_whole_whatever_the_order_of_its_imports() {
        let text = "version = 3\nimports = ['/etc/containerd/b.toml', '/etc/containerd/.c', '/a']\n\
                    [plugins.x]\nat = 1979-05-27\nlist = [{a = 1}]\n[[plugins.y.many]]\nk = 1.5\n";
        let values = read(text, "/etc/containerd/.c").unwrap();
        assert_eq!(values["imports"], json!(["/a", "/etc/containerd/b.toml"]));
        assert_eq!(values["plugins"]["x"], json!({"at": "1979-05-27", "list": [{"a": 1}]}));
        assert_eq!(values["plugins"]["y"], json!({"many": [{"k": 1.5}]}));
        assert_eq!(imports(&values).len(), 2);
        let alone = read("imports = ['/etc/containerd/config.toml']", "/x").unwrap();
        assert!(alone.is_empty());
    }
}
