//! Settings against the declaration of a bundle.

use serde_json::Value;

use super::{Checked, Form, Given, Notes, Refused, shown};
use crate::bundle::{BundleConfig, Setting};

impl Given {
    /// The settings that a bundle takes.
    ///
    /// # Errors
    /// In strict, when there is one that it does not know or a value that it
    /// does not take.
    pub fn check(&self, bundle: &BundleConfig) -> Result<Checked, Refused> {
        let mut notes = Notes::new(self.how);
        let mut checked = Checked::default();
        for (name, given) in &self.settings {
            let field = self.form.field(name);
            let Some(setting) = bundle.setting(name) else {
                let why = format!(
                    "{} {} has no such setting, it has: {}",
                    bundle.runtime,
                    bundle.version,
                    bundle.setting_names()
                );
                notes.pass_over(field, shown(given), why);
                continue;
            };
            match self.value(setting, given) {
                Some(value) if setting.omits(&value) => {}
                Some(value) => {
                    checked.settings.insert(name.clone(), value);
                }
                None => notes.pass_over(field, shown(given), self.wants(setting)),
            }
        }
        checked.passed_over = notes.end()?;
        Ok(checked)
    }

    /// The value that a setting takes, where it does.
    fn value(&self, setting: &Setting, given: &Value) -> Option<Value> {
        let value = match (self.form, given) {
            (Form::GVisor, Value::String(text)) => setting.read(text)?,
            _ => given.clone(),
        };
        setting.takes(&value).then_some(value)
    }

    fn wants(&self, setting: &Setting) -> String {
        match self.form {
            Form::Runtime => format!("want {}", setting.wants()),
            Form::GVisor => format!("want {}, in quotes", setting.wants()),
        }
    }
}
