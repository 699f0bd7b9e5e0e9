//! containerd's configuration: our runtime tables in `config.toml`, and nothing else of it.
//!
//! The text is edited, not written anew: keys, order and comments of others
//! stay byte for byte. No drop-in files: containerd before 2.0 lets one replace
//! the whole CRI table, and a node that goes back to 1.7 would then not start.
//! Whose a table is stands in the journal, because other writers of this file
//! drop comments.

pub(crate) mod dump;
pub(crate) mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use rootstock_core::layout::{HandlerTable, toml_table};
use rootstock_core::name::HandlerName;
use rootstock_core::plan::inherited;
use rootstock_core::preflight::Version;
use rootstock_core::status::Reason;
use serde_json::{Map, Value};
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike};

/// The folder of the configuration on a node.
pub const FOLDER: &str = "/etc/containerd";
/// The configuration's name in it.
pub const FILE: &str = "config.toml";
/// The largest configuration that is read, in bytes; ordinary ones have 10 KiB.
pub const MAX_SIZE: u64 = 4 << 20;

/// The plugin that runs containers, by the configuration's version: 1, 2, then 3 and 4.
const PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

/// Why the configuration can't be read or changed. It is then left as it is.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML.
    #[error("{FOLDER}/{FILE} is no valid TOML: {0}")]
    Syntax(String),
    /// TOML, but not containerd's.
    #[error("{FOLDER}/{FILE}: {0}")]
    Shape(String),
    /// A table of ours that TOML has no words for.
    #[error("the table of handler {handler} can't be written: {why}")]
    Table {
        /// The handler.
        handler: HandlerName,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ConfigError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Syntax(_) | Self::Shape(_) => Reason::ContainerdConfigInvalid,
            Self::Table { .. } => Reason::BundleInvalid,
        }
    }
}

/// The configuration of a node that has none: nothing but its version, the
/// one that this containerd writes itself, and what it imports by default.
pub fn minimal(containerd_version: &str, imports: &[String]) -> String {
    let version = Version::parse(containerd_version);
    let old = version.is_some() && version < Version::parse("2.0");
    let mut document = DocumentMut::new();
    document.insert("version", toml_edit::value(if old { 2 } else { 3 }));
    if !imports.is_empty() {
        document.insert("imports", toml_edit::value(imports.iter().collect::<toml_edit::Array>()));
    }
    document.to_string()
}

/// The runtime tables in a configuration; none where one is not of our form.
pub fn tables(text: &str) -> Result<BTreeMap<HandlerName, Option<HandlerTable>>, ConfigError> {
    let document = parse(text)?;
    let mut at: &dyn TableLike = document.as_table();
    for part in runtimes_path(&document)? {
        match at.get(part) {
            None => return Ok(BTreeMap::new()),
            Some(item) => at = item.as_table_like().ok_or_else(|| no_table(part))?,
        }
    }
    // Names that no RuntimeClass could ask for are no concern of ours.
    let named = at.iter().filter_map(|(name, item)| Some((name.parse().ok()?, read(item))));
    Ok(named.collect())
}

/// What to change in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Tables to set.
    pub set: BTreeMap<HandlerName, HandlerTable>,
    /// Tables to take out.
    pub remove: BTreeSet<HandlerName>,
    /// Tables of others to put back, as [`table_text`] gave them.
    pub restore: BTreeMap<HandlerName, String>,
    /// Plugins to take the table of the gVisor extension's script out of, if it
    /// is still exactly that.
    pub strays: BTreeSet<String>,
}

/// The configuration with these tables set and those taken out.
pub fn edit(
    text: &str,
    set: &BTreeMap<HandlerName, HandlerTable>,
    remove: &BTreeSet<HandlerName>,
) -> Result<String, ConfigError> {
    let changes = Changes { set: set.clone(), remove: remove.clone(), ..Changes::default() };
    change(text, &changes)
}

/// The configuration with these changes, all in one text.
pub fn change(text: &str, changes: &Changes) -> Result<String, ConfigError> {
    let there = tables(text)?;
    let mut document = parse(text)?;
    let path = runtimes_path(&document)?;
    let Changes { set, remove, restore, strays } = changes;
    let remove: Vec<_> = remove.iter().filter(|name| there.contains_key(*name)).collect();
    let set: Vec<_> = set
        .iter()
        .filter(|(name, table)| there.get(*name) != Some(&Some((*table).clone())))
        .collect();
    let strays: BTreeSet<&str> =
        self::strays(&document)?.into_iter().filter(|plugin| strays.contains(*plugin)).collect();
    if remove.is_empty() && set.is_empty() && restore.is_empty() && strays.is_empty() {
        return Ok(text.to_owned());
    }
    let default = default_runtime(&document, &path);
    if let Some(name) = remove.iter().find(|name| default == Some(name.as_str())) {
        return Err(ConfigError::Shape(format!(
            "its default_runtime_name is {name}: without that handler's table containerd would not start"
        )));
    }
    let mut new = Vec::new();
    for (name, table) in &set {
        let table =
            write(table).map_err(|why| ConfigError::Table { handler: (*name).clone(), why })?;
        new.push((*name, table));
    }
    for (name, text) in restore {
        let mut table = parse(text)?.as_table().clone();
        table.set_implicit(false);
        new.push((name, table));
    }
    if !(remove.is_empty() && new.is_empty()) {
        put(&mut document, &path, &remove, new.clone())?;
    }
    for plugin in &strays {
        let path = ["plugins", plugin, "containerd", "runtimes"];
        runtimes_mut(&mut document, &path)?.0.remove(inherited::HANDLER);
    }
    let edited = document.to_string();
    let ours: BTreeSet<&HandlerName> =
        remove.into_iter().chain(new.iter().map(|(name, _)| *name)).collect();
    if foreign(text, &ours, &strays)? != foreign(&edited, &ours, &strays)? {
        let why = "it is written in a way that can't be edited without changing what is not ours";
        return Err(ConfigError::Shape(why.to_owned()));
    }
    Ok(edited)
}

fn put(
    document: &mut DocumentMut,
    path: &[&str; 4],
    remove: &[&HandlerName],
    new: Vec<(&HandlerName, Table)>,
) -> Result<(), ConfigError> {
    let (runtimes, inline) = runtimes_mut(document, path)?;
    for name in remove {
        runtimes.remove(name.as_str());
    }
    for (name, mut new) in new {
        let item = if inline {
            Item::Value(new.into_inline_table().into())
        } else {
            // A table that is replaced keeps its place and the comment above it.
            if let Some(old) = runtimes.get(name.as_str()).and_then(Item::as_table) {
                new.set_position(old.position());
                *new.decor_mut() = old.decor().clone();
            }
            Item::Table(new)
        };
        runtimes.insert(name.as_str(), item);
    }
    Ok(())
}

/// A handler's table as a text of its own, to put it back one day.
pub fn table_text(text: &str, handler: &HandlerName) -> Result<Option<String>, ConfigError> {
    let document = parse(text)?;
    let mut at: &dyn TableLike = document.as_table();
    for part in runtimes_path(&document)?.into_iter().chain([handler.as_str()]) {
        match at.get(part).and_then(Item::as_table_like) {
            None => return Ok(None),
            Some(table) => at = table,
        }
    }
    let mut alone = DocumentMut::new();
    for (key, item) in at.iter() {
        let mut item = item.clone();
        place_anew(&mut item);
        alone.insert(key, item);
    }
    Ok(Some(alone.to_string()))
}

/// Lets a table be written where it stands now, and not where it stood before.
fn place_anew(item: &mut Item) {
    if let Some(table) = item.as_table_mut() {
        table.set_position(None);
        for (_, item) in table.iter_mut() {
            place_anew(item);
        }
    }
}

/// The plugins of other versions of the configuration in which the gVisor
/// extension's script left its table: an upgrade in place changes the file's
/// version under it.
pub fn stray_tables(text: &str) -> Result<BTreeSet<String>, ConfigError> {
    Ok(strays(&parse(text)?)?.into_iter().map(str::to_owned).collect())
}

fn strays(document: &DocumentMut) -> Result<Vec<&'static str>, ConfigError> {
    let [_, own, ..] = runtimes_path(document)?;
    let is_stray = |plugin: &&str| {
        let mut at = document.as_table().get("plugins");
        for part in [plugin, "containerd", "runtimes", inherited::HANDLER] {
            at = at.and_then(Item::as_table_like).and_then(|table| table.get(part));
        }
        at.and_then(read) == Some(inherited::table())
    };
    Ok(PLUGINS.into_iter().filter(|plugin| *plugin != own).filter(is_stray).collect())
}

/// The handler of pods that ask for none.
pub fn default_handler(text: &str) -> Result<Option<String>, ConfigError> {
    let document = parse(text)?;
    let path = runtimes_path(&document)?;
    Ok(default_runtime(&document, &path).map(str::to_owned))
}

/// Everything in a configuration but these handlers' tables, and but tables
/// that are empty: for one key, its parents are made.
fn foreign(
    text: &str,
    ours: &BTreeSet<&HandlerName>,
    strays: &BTreeSet<&str>,
) -> Result<Map<String, Value>, ConfigError> {
    let mut document = parse(text)?;
    let path = runtimes_path(&document)?;
    for plugin in strays {
        let path = ["plugins", plugin, "containerd", "runtimes"];
        let mut at: Option<&mut dyn TableLike> = Some(document.as_table_mut());
        for part in path {
            at = at.and_then(|table| table.get_mut(part)?.as_table_like_mut());
        }
        at.and_then(|runtimes| runtimes.remove(inherited::HANDLER));
    }
    let mut at: Option<&mut dyn TableLike> = Some(document.as_table_mut());
    for part in path {
        at = at.and_then(|table| table.get_mut(part)?.as_table_like_mut());
    }
    if let Some(runtimes) = at {
        for name in ours {
            runtimes.remove(name.as_str());
        }
    }
    Ok(plain(document.as_table()))
}

fn plain(table: &dyn TableLike) -> Map<String, Value> {
    let value = |item: &Item| match (item.as_table_like(), item.as_array_of_tables()) {
        (Some(table), _) => Value::Object(plain(table)),
        (None, Some(tables)) => tables.iter().map(|table| Value::Object(plain(table))).collect(),
        // Its own form is good enough: nobody else's value is ever written anew.
        (None, None) => {
            let bare = item.clone().into_value().map(|mut value| {
                value.decor_mut().clear();
                value.to_string()
            });
            Value::String(bare.unwrap_or_default())
        }
    };
    let all = table.iter().map(|(key, item)| (key.to_owned(), value(item)));
    all.filter(|(_, value)| value.as_object().is_none_or(|table| !table.is_empty())).collect()
}

fn parse(text: &str) -> Result<DocumentMut, ConfigError> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        // The message quotes the place; one line is enough.
        ConfigError::Syntax(error.to_string().lines().next().unwrap_or_default().to_owned())
    })
}

/// Where the runtimes stand, by the file's own version.
fn runtimes_path(document: &DocumentMut) -> Result<[&'static str; 4], ConfigError> {
    let version = match document.get("version") {
        // containerd reads a file without a version as version 1.
        None => 1,
        Some(item) => item
            .as_integer()
            .ok_or_else(|| ConfigError::Shape("its version is no number".to_owned()))?,
    };
    let [one, two, three] = PLUGINS;
    let plugin = match version {
        1 => one,
        2 => two,
        3 | 4 => three,
        _ => return Err(ConfigError::Shape(format!("its version {version} is not known"))),
    };
    Ok(["plugins", plugin, "containerd", "runtimes"])
}

/// The runtime of pods that ask for none; no sandbox tells that it uses it.
fn default_runtime<'a>(document: &'a DocumentMut, path: &[&str; 4]) -> Option<&'a str> {
    let [plugins, plugin, containerd, _] = path;
    let mut at: &dyn TableLike = document.as_table();
    for part in [plugins, plugin, containerd] {
        at = at.get(part)?.as_table_like()?;
    }
    at.get("default_runtime_name")?.as_str()
}

fn no_table(part: &str) -> ConfigError {
    ConfigError::Shape(format!("its key {part:?} is no table"))
}

/// The table of runtimes, made where it is missing, and whether it is written inline.
fn runtimes_mut<'a>(
    document: &'a mut DocumentMut,
    path: &[&str],
) -> Result<(&'a mut dyn TableLike, bool), ConfigError> {
    let mut at: &mut dyn TableLike = document.as_table_mut();
    let mut inline = false;
    for part in path {
        if at.get(part).is_none() {
            let item = if inline {
                Item::Value(InlineTable::new().into())
            } else {
                let mut table = Table::new();
                // Without a header of its own it leaves nothing behind.
                table.set_implicit(true);
                Item::Table(table)
            };
            at.insert(part, item);
        }
        let item = at.get_mut(part).ok_or_else(|| no_table(part))?;
        inline |= item.is_inline_table();
        at = item.as_table_like_mut().ok_or_else(|| no_table(part))?;
    }
    Ok((at, inline))
}

fn write(table: &HandlerTable) -> Result<Table, &'static str> {
    let mut out = Table::new();
    let mut put = |key: &str, value: toml_edit::Value| {
        out.insert(key, Item::Value(value));
    };
    put("runtime_type", table.runtime_type.as_str().into());
    if !table.runtime_path.is_empty() {
        put("runtime_path", table.runtime_path.as_str().into());
    }
    if !table.pod_annotations.is_empty() {
        let annotations: toml_edit::Array = table.pod_annotations.iter().collect();
        put("pod_annotations", annotations.into());
    }
    if table.privileged_without_host_devices {
        put("privileged_without_host_devices", true.into());
    }
    if !table.options.is_empty() {
        out.insert("options", Item::Table(toml_table(&table.options)?));
    }
    Ok(out)
}

/// A table of exactly the keys that we write, or none.
fn read(item: &Item) -> Option<HandlerTable> {
    let mut out = HandlerTable::default();
    for (key, item) in item.as_table_like()?.iter() {
        match key {
            "runtime_type" => out.runtime_type = item.as_str()?.to_owned(),
            "runtime_path" => out.runtime_path = item.as_str()?.to_owned(),
            "pod_annotations" => {
                let texts = item.as_array()?.iter().map(|text| text.as_str().map(str::to_owned));
                out.pod_annotations = texts.collect::<Option<_>>()?;
            }
            "privileged_without_host_devices" => {
                out.privileged_without_host_devices = item.as_bool()?;
            }
            "options" => out.options = object(item.as_table_like()?)?,
            _ => return None,
        }
    }
    Some(out)
}

fn object(table: &dyn TableLike) -> Option<Map<String, Value>> {
    table.iter().map(|(key, item)| Some((key.to_owned(), json(item)?))).collect()
}

fn json(item: &Item) -> Option<Value> {
    if let Some(table) = item.as_table_like() {
        return Some(Value::Object(object(table)?));
    }
    value(item.as_value()?)
}

fn value(value: &toml_edit::Value) -> Option<Value> {
    Some(match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Float(number) => (*number.value()).into(),
        toml_edit::Value::Boolean(value) => (*value.value()).into(),
        toml_edit::Value::Array(items) => {
            Value::Array(items.iter().map(self::value).collect::<Option<_>>()?)
        }
        toml_edit::Value::InlineTable(table) => Value::Object(object(table)?),
        toml_edit::Value::Datetime(_) => return None,
    })
}
