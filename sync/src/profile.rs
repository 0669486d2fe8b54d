//! Credentials in the files of Amazon's own tools, which most other tools read as well.

use std::path::PathBuf;

use ini::Ini;
use tideline_journal::{Code, Error, Result};

/// What a profile says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    pub region: Option<String>,
}

impl Profile {
    /// A key, its secret, and the token that may go with them.
    pub fn keys(&self) -> Option<(&str, &str, Option<&str>)> {
        Some((
            self.access_key_id.as_deref()?,
            self.secret_access_key.as_deref()?,
            self.session_token.as_deref(),
        ))
    }
}

/// The profile that counts: the one named by an option, else, where neither option nor environment have a key, the one
/// that the environment names, or `default`.
///
/// # Errors
/// `Argument` if one is named and isn't there, or a file can't be read.
pub(crate) fn wanted(named: Option<&str>, has_key: bool) -> Result<Option<Profile>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if named.is_none() && (has_key || variable("AWS_ACCESS_KEY_ID").is_some()) {
        return Ok(None);
    }
    let from_environment = variable("AWS_PROFILE");
    let name = named.or(from_environment.as_deref());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
    let file = |chosen: &str, usual: &str| {
        variable(chosen).map(PathBuf::from).or_else(|| home().map(|home| home.join(".aws").join(usual)))
    };
    let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials").map(load).transpose()?.flatten();
    let config = file("AWS_CONFIG_FILE", "config").map(load).transpose()?.flatten();
    let found = find(credentials.as_ref(), config.as_ref(), name.unwrap_or("default"));
    match (found, name) {
        (None, Some(name)) => {
            let text = format!(
                "there is no profile {name:?} in the files of credentials; see to ~/.aws/credentials, or name another one"
            );
            Err(Error::new(Code::Argument, text))
        }
        (found, _) => Ok(found),
    }
}

fn load(path: PathBuf) -> Result<Option<Ini>> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            let text = format!("{} can't be read: {e}; see to its permissions", path.display());
            return Err(Error::new(Code::Denied, text));
        }
    };
    // Its error would tell of what is in it.
    Ini::load_from_str_noescape(&text).map(Some).map_err(|e| {
        let text =
            format!("{} can't be read: line {} isn't what it should be; see to it", path.display(), e.line);
        Error::new(Code::Argument, text)
    })
}

fn find(credentials: Option<&Ini>, config: Option<&Ini>, name: &str) -> Option<Profile> {
    let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    let sections: Vec<_> = [
        credentials.and_then(|ini| ini.section(Some(name))),
        config.and_then(|ini| ini.section(Some(in_config.as_str()))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if sections.is_empty() {
        return None;
    }
    let get = |key: &str| {
        let values = sections.iter().filter_map(|section| section.get(key));
        values.map(str::trim).find(|value| !value.is_empty()).map(str::to_owned)
    };
    Some(Profile {
        access_key_id: get("aws_access_key_id"),
        secret_access_key: get("aws_secret_access_key"),
        session_token: get("aws_session_token"),
        region: get("region"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_put_together_from_both_files() {
        let ini = |text| Ini::load_from_str_noescape(text).unwrap();
        let credentials = ini(
            "[default]\naws_access_key_id = A\naws_secret_access_key = a\\b/c+d=\n[other]\naws_access_key_id=B\n",
        );
        let config = ini("[default]\nregion=eu-1\n[profile other]\nregion = us-2\naws_secret_access_key=s\n");
        let text = |text: &str| Some(text.to_owned());
        let found = find(Some(&credentials), Some(&config), "default").unwrap();
        assert!(found.access_key_id == text("A") && found.secret_access_key == text("a\\b/c+d="));
        assert!(found.region == text("eu-1") && found.session_token.is_none());
        let found = find(Some(&credentials), Some(&config), "other").unwrap();
        assert!(found.access_key_id == text("B") && found.secret_access_key == text("s"));
        assert!(find(Some(&credentials), Some(&config), "third").is_none());
        assert!(find(None, None, "default").is_none());
    }
}
