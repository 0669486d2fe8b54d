//! The bucket of an object store that speaks S3, for tests of remotes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::library::skipped;

/// What the store is: `moto`, `ceph` or `s3s`.
const STORE: &str = "TIDELINE_S3_STORE";
/// Where requests go.
const ENDPOINT: &str = "TIDELINE_S3_ENDPOINT";
/// Where a store has two that lead to the same objects.
const SECOND_ENDPOINT: &str = "TIDELINE_S3_ENDPOINT_2";
const BUCKET: &str = "TIDELINE_S3_BUCKET";
const KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const REGION: &str = "AWS_REGION";

/// A bucket that all tests of a process use. Each has a place of its own in it.
pub struct Bucket {
    environment: Vec<(String, String)>,
    /// The server, if it is ours. It lives until its standard input is closed, which the system does when this process
    /// ends, however it does.
    _server: Option<Child>,
}

static BUCKET_OF_ALL: OnceLock<Result<Bucket, String>> = OnceLock::new();

impl Bucket {
    /// The one that the environment names (`cargo xtask stores` sets it), or else one of a moto that is started now; or
    /// `None` after saying that what needs it is left out.
    pub fn get() -> Option<&'static Bucket> {
        let found = BUCKET_OF_ALL.get_or_init(|| Bucket::given().map_or_else(Bucket::start, Ok)).as_ref();
        found.map_err(|why| skipped(&format!("no S3: {why}"))).ok()
    }

    /// The same if a test of this process has it already.
    pub(crate) fn found() -> Option<&'static Bucket> {
        BUCKET_OF_ALL.get()?.as_ref().ok()
    }

    fn given() -> Option<Bucket> {
        let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let environment = [STORE, ENDPOINT, SECOND_ENDPOINT, BUCKET, KEY, SECRET, REGION]
            .into_iter()
            .filter_map(variable)
            .collect();
        std::env::var_os(ENDPOINT).map(|_| Bucket { environment, _server: None })
    }

    fn start() -> Result<Bucket, String> {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("TIDELINE_MOTO_PYTHON")
            .map_or_else(|| here.join("../target/moto/bin/python3"), PathBuf::from);
        if !python.exists() {
            return Err("no moto; `cargo xtask test` installs it where it can".into());
        }
        let mut command = Command::new(python);
        command.arg("-B").arg(here.join("stores/serve_moto.py"));
        // Ctrl-C is for the tests; the server goes after them.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut server = command.spawn().map_err(|error| format!("moto: {error}"))?;
        let mut line = String::new();
        let stdout = server.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).map_err(|error| format!("moto: {error}"))?;
        let environment: Map<String, Value> =
            serde_json::from_str(&line).map_err(|_| format!("moto didn't start, and said {line:?}"))?;
        let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
        Ok(Bucket { environment: environment.into_iter().filter_map(text).collect(), _server: Some(server) })
    }

    /// The variables by which a process finds it.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Does it look whether requests are signed with its keys?
    pub fn asks_for_keys(&self) -> bool {
        self.variable(STORE) != Some("moto")
    }

    /// Is it the one that lets several create the same object?
    pub fn lies(&self) -> bool {
        self.variable(STORE) == Some("s3s")
    }

    /// Its server, as in `http://127.0.0.1:9000`.
    pub fn endpoint(&self) -> &str {
        self.variable(ENDPOINT).expect("an endpoint")
    }

    /// Another server to the same objects, where there is one.
    pub fn second_endpoint(&self) -> Option<&str> {
        self.variable(SECOND_ENDPOINT)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.variable(BUCKET).unwrap_or("tideline")
    }

    /// URL of a remote at a place that nobody had before.
    pub fn new_place(&self) -> String {
        // RandomState is seeded anew in each process, and differs from one to the next in it.
        format!("s3://{}/test-{:016x}", self.name(), RandomState::new().build_hasher().finish())
    }

    /// Options for a remote that is reached through this endpoint, which may be a proxy's, as JSON. The keys are among
    /// them: a process that was started before doesn't have them in its environment.
    pub fn options(&self, endpoint: &str) -> String {
        json!({
            "endpoint": endpoint,
            "region": self.variable(REGION).unwrap_or("us-east-1"),
            "access_key_id": self.variable(KEY),
            "secret_access_key": self.variable(SECRET),
        })
        .to_string()
    }
}
