//! Special tokens by name, out of the two files that name them.

use serde_json::{Map, Value};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

/// `tokenizer_config.json` with the special tokens that transformers takes: where it lists no `added_tokens_decoder`,
/// those of `special_tokens_map.json`, which come first then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecialSettings {
    /// Both files together, an object.
    pub settings: Value,
    /// Keys that `special_tokens_map.json` decided.
    pub mapped: Vec<String>,
}

impl SpecialSettings {
    /// Reads both; a file that is not there is `None`.
    ///
    /// # Errors
    /// The file that is no JSON.
    pub fn read(
        config: Option<&str>,
        map: Option<&str>,
    ) -> Result<SpecialSettings, (&'static str, serde_json::Error)> {
        let parse = |file: &'static str, text: Option<&str>| match text {
            Some(text) => serde_json::from_str(text).map_err(|source| (file, source)),
            None => Ok(Value::Object(Map::new())),
        };
        let (mut settings, mut mapped): (Value, _) = (parse(CONFIG, config)?, Vec::new());
        if let (Some(settings), Some(map)) = (settings.as_object_mut(), map)
            && !settings.contains_key("added_tokens_decoder")
            && let Value::Object(map) = parse(MAP, Some(map))?
        {
            mapped.extend(map.keys().cloned());
            settings.extend(map);
        }
        Ok(SpecialSettings { settings, mapped })
    }

    /// The file that says what `key` is.
    pub fn file_of(&self, key: &str) -> &'static str {
        if self.mapped.iter().any(|mapped| mapped == key) { MAP } else { CONFIG }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Option<Value>, map: &Value) -> SpecialSettings {
        let config = config.map(|config| config.to_string());
        SpecialSettings::read(config.as_deref(), Some(&map.to_string())).unwrap()
    }

    /// As `_from_pretrained` of transformers does it.
    #[test]
    fn the_map_of_special_tokens_is_for_settings_without_added_tokens() {
        let map = json!({"bos_token": "<m>", "unk_token": {"content": "<u>"}});
        assert_eq!(read(None, &map).settings["bos_token"], "<m>");
        let merged = read(Some(json!({"bos_token": "<c>", "eos_token": "</c>"})), &map);
        assert_eq!(
            merged.settings,
            json!({"bos_token": "<m>", "eos_token": "</c>", "unk_token": {"content": "<u>"}})
        );
        assert_eq!((merged.file_of("bos_token"), merged.file_of("eos_token")), (MAP, CONFIG));
        let listed = json!({"bos_token": "<c>", "added_tokens_decoder": {}});
        let read = read(Some(listed.clone()), &map);
        assert_eq!((&read.settings, read.file_of("bos_token")), (&listed, CONFIG));
    }

    #[test]
    fn the_file_that_is_no_json_is_named() {
        assert_eq!(SpecialSettings::read(None, Some("[")).unwrap_err().0, MAP);
        assert_eq!(SpecialSettings::read(Some("{"), Some("[")).unwrap_err().0, CONFIG);
    }
}
