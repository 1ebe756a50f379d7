//! The command line: LiveKit server's flags, a flag for every scalar configuration key, and the
//! subcommands around the server. Turns words into [`Flags`] and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{Flags, KEYS, parse_duration};

/// A self-hosted media server that LiveKit clients can use as it is.
///
/// Without a subcommand it runs the server. Every key of the configuration file is also a flag
/// (`--rtc.tcp_port 7881`) and an environment variable (`LIVEKIT_RTC_TCP_PORT`); flags win over the
/// environment, which wins over the file.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, args_conflicts_with_subcommands = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags that describe the configuration, accepted before and after a subcommand.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file (LiveKit's YAML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Configuration as YAML text, instead of a file [env: LIVEKIT_CONFIG]
    #[arg(long, global = true, value_name = "YAML")]
    config_body: Option<String>,
    /// Development mode: listen on 127.0.0.1, key `devkey` with secret `secret`
    #[arg(long, global = true)]
    dev: bool,
    /// Address to listen on; may be repeated
    #[arg(long, global = true, value_name = "IP")]
    bind: Vec<String>,
    /// API keys, as lines of `key: secret` [env: LIVEKIT_KEYS]
    #[arg(long, global = true, value_name = "KEYS")]
    keys: Option<String>,
    /// File of API keys; must not be readable by other users
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Address that clients reach this node at, `v4` or `v4,v6` [env: NODE_IP]
    #[arg(long, global = true, value_name = "IP")]
    node_ip: Option<String>,
    /// UDP port, or range `first-last`, for media [env: UDP_PORT]
    #[arg(long, global = true, value_name = "PORT")]
    udp_port: Option<String>,
    /// Region of this node [env: LIVEKIT_REGION]
    #[arg(long = "region", id = "region_flag", global = true, value_name = "NAME")]
    region: Option<String>,
    /// Media worker threads, default one per core
    #[arg(long = "workers", id = "workers_flag", global = true, value_name = "N")]
    workers: Option<u64>,
    /// Redis server, `host:port` [env: REDIS_HOST]
    #[arg(long, global = true, value_name = "ADDRESS")]
    redis_host: Option<String>,
    /// Password of the Redis server [env: REDIS_PASSWORD]
    #[arg(long, global = true, value_name = "PASSWORD")]
    redis_password: Option<String>,
    /// Certificate of the TURN server [env: LIVEKIT_TURN_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    turn_cert: Option<String>,
    /// Key of the TURN server's certificate [env: LIVEKIT_TURN_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    turn_key: Option<String>,
    /// Unknown keys of the configuration are reported and ignored instead of refused
    #[arg(long, global = true)]
    disable_strict_config: bool,
    /// LiveKit's name for a CPU profile; refused, with what to use instead
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    cpuprofile: Option<PathBuf>,
    /// LiveKit's name for a heap profile; refused, with what to use instead
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    memprofile: Option<PathBuf>,
}

/// What to do other than serve.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print an access token for a participant or for the server API
    #[command(visible_alias = "create-join-token")]
    CreateToken(Box<TokenArgs>),
    /// Print the ports that clients must be able to reach
    Ports,
    /// Print a new API key with its secret
    GenerateKeys,
    /// Print the node that the configuration describes, as it is now
    ListNodes,
    /// Print this help with the flag of every configuration key
    HelpVerbose,
    /// Load a LiveKit-compatible server with participants and measure what arrives
    LoadTest(Box<sluice_load::cli::LoadTestArgs>),
    /// Work with the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read and check the configuration, and print what was understood
    Check,
}

/// Flags of `create-token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Room that the token is for; gives the right to join it
    #[arg(long)]
    pub(crate) room: Option<String>,
    /// Identity of the participant
    #[arg(long)]
    pub(crate) identity: Option<String>,
    /// Display name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Metadata of the participant
    #[arg(long)]
    pub(crate) metadata: Option<String>,
    /// Attribute of the participant; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) attributes: Vec<(String, String)>,
    /// Kind of participant
    #[arg(long, value_enum)]
    pub(crate) kind: Option<ParticipantKind>,
    /// How long the token is valid
    #[arg(long, default_value = "6h", value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// API key to sign with, default the first configured one [env: LIVEKIT_API_KEY]
    #[arg(long)]
    pub(crate) api_key: Option<String>,
    /// Secret of --api-key, default the configured one [env: LIVEKIT_API_SECRET]
    #[arg(long)]
    pub(crate) api_secret: Option<String>,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
}

/// Rights that `create-token` gives or takes away.
#[derive(Debug, Args)]
pub(crate) struct GrantArgs {
    /// May join (implied by --room, unless --admin is given alone)
    #[arg(long)]
    pub(crate) join: bool,
    /// May list rooms
    #[arg(long)]
    pub(crate) list: bool,
    /// May create and delete rooms
    #[arg(long)]
    pub(crate) create: bool,
    /// May control the room given by --room
    #[arg(long)]
    pub(crate) admin: bool,
    /// May record
    #[arg(long)]
    pub(crate) record: bool,
    /// May control ingress
    #[arg(long)]
    pub(crate) ingress_admin: bool,
    /// Is invisible to others
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Is a recorder (LiveKit's create-join-token flag)
    #[arg(long)]
    pub(crate) recorder: bool,
    /// Is an agent
    #[arg(long)]
    pub(crate) agent: bool,
    /// May not publish tracks
    #[arg(long)]
    pub(crate) no_publish: bool,
    /// May not subscribe
    #[arg(long)]
    pub(crate) no_subscribe: bool,
    /// May not publish data
    #[arg(long)]
    pub(crate) no_publish_data: bool,
    /// May publish these sources only; may be repeated
    #[arg(long = "publish-source", value_enum, value_name = "SOURCE")]
    pub(crate) publish_sources: Vec<PublishSource>,
    /// May change own name, metadata and attributes
    #[arg(long)]
    pub(crate) update_own_metadata: bool,
}

/// Kinds of participant a token can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ParticipantKind {
    /// A person or program (the default)
    Standard,
    /// An agent
    Agent,
    /// A recorder
    Egress,
    /// A stream from elsewhere
    Ingress,
    /// A telephone
    Sip,
}

/// Sources a token can restrict publishing to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PublishSource {
    /// Camera
    Camera,
    /// Microphone
    Microphone,
    /// Screen
    ScreenShare,
    /// Sound of the screen
    ScreenShareAudio,
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// What to do; `None` serves.
    pub(crate) command: Option<Command>,
    /// What was said about configuration.
    pub(crate) flags: Flags,
}

/// Parses the words of a command line, the program's name first.
pub(crate) fn parse<I, T>(words: I) -> Result<Invocation, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let command = Cli::command().args(generated_arguments());
    let matches = command.try_get_matches_from(words)?;
    let Cli { config, command } = Cli::from_arg_matches(&matches)?;
    Ok(Invocation { flags: flags(config, &matches), command })
}

/// The help of `help-verbose`: every flag, those of configuration keys included.
pub(crate) fn help_verbose() -> String {
    let generated = generated_arguments().map(|argument| argument.hide(false));
    Cli::command().args(generated).render_long_help().to_string()
}

/// One hidden flag for every scalar key that has no flag of its own.
fn generated_arguments() -> impl Iterator<Item = Arg> {
    let own = ["region", "workers", "key_file"];
    KEYS.iter().filter(move |key| key.is_scalar() && !own.contains(&key.path)).map(|key| {
        Arg::new(key.path)
            .long(key.path)
            .global(true)
            .hide(true)
            .value_name("VALUE")
            // A value may be negative: `--limit.num_tracks -1`.
            .allow_hyphen_values(true)
            .help(format!("[env: {}]", key.environment_name()))
            .help_heading("Keys of the configuration")
    })
}

fn flags(config: ConfigArgs, matches: &ArgMatches) -> Flags {
    let keys_by_path = generated_arguments()
        .filter_map(|argument| {
            let path = KEYS.iter().find(|key| key.path == argument.get_id().as_str())?.path;
            Some((path, matches.get_one::<String>(path)?.clone()))
        })
        .collect();
    Flags {
        config: config.config,
        config_body: config.config_body,
        dev: config.dev,
        bind: config.bind,
        keys: config.keys,
        key_file: config.key_file,
        node_ip: config.node_ip,
        udp_port: config.udp_port,
        region: config.region,
        workers: config.workers,
        lenient: config.disable_strict_config,
        profile: config.cpuprofile.is_some() || config.memprofile.is_some(),
        aliases: [
            ("redis.address", config.redis_host),
            ("redis.password", config.redis_password),
            ("turn.cert_file", config.turn_cert),
            ("turn.key_file", config.turn_key),
        ]
        .into_iter()
        .filter_map(|(path, text)| Some((path, text?)))
        .collect(),
        keys_by_path,
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| *duration >= Duration::from_secs(1))
        .ok_or_else(|| "expected a duration such as 6h or 90s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().args(generated_arguments()).debug_assert();
    }

    #[test]
    fn every_scalar_key_is_a_flag() {
        let words = ["sluice", "--dev", "--rtc.tcp_port", "9000", "--logging.json=true"];
        let invocation = parse(words).unwrap();
        assert!(invocation.flags.dev);
        assert_eq!(
            invocation.flags.keys_by_path,
            [("logging.json", "true".to_owned()), ("rtc.tcp_port", "9000".to_owned())]
        );
    }

    #[test]
    fn configuration_flags_may_follow_the_subcommand() {
        let invocation = parse(["sluice", "ports", "--udp-port", "7000-7003"]).unwrap();
        assert!(matches!(invocation.command, Some(Command::Ports)));
        assert_eq!(invocation.flags.udp_port.as_deref(), Some("7000-7003"));
    }

    #[test]
    fn livekit_name_of_create_token_works() {
        let words = ["sluice", "create-join-token", "--room", "r", "--identity", "i", "--recorder"];
        let Some(Command::CreateToken(arguments)) = parse(words).unwrap().command else {
            panic!("not a token command");
        };
        assert!(arguments.grants.recorder);
        assert_eq!(arguments.ttl, Duration::from_secs(6 * 3600));
    }

    #[test]
    fn livekit_flags_are_names_of_keys() {
        let words = ["sluice", "--redis-host", "h:1", "--turn-cert", "c.pem"];
        let flags = parse(words).unwrap().flags;
        let aliases = [("redis.address", "h:1".to_owned()), ("turn.cert_file", "c.pem".to_owned())];
        assert_eq!(flags.aliases, aliases);
    }

    #[test]
    fn verbose_help_names_every_scalar_key() {
        let help = help_verbose();
        for key in KEYS.iter().filter(|key| key.is_scalar() && key.path != "key_file") {
            assert!(help.contains(&format!("--{}", key.path)), "{}", key.path);
        }
    }

    #[test]
    fn bind_repeats() {
        let words = ["sluice", "--bind", "127.0.0.1", "--bind", "::1"];
        assert_eq!(parse(words).unwrap().flags.bind, ["127.0.0.1", "::1"]);
    }
}
