//! Which routes are there, in the order in which they are tried?

use super::ask::ask;
use super::{ConfigArgs, Format, offline};
use crate::snapshot::{self, RouteLine};
use std::io::{self, Write};
use std::process::ExitCode;

/// Flags of `routes`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate routes
  tidegate routes --config gate.yaml --format json
  tidegate routes --admin 127.0.0.1:9901    what the running proxy serves")]
pub struct RoutesArgs {
    /// Configuration to read
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask the running proxy at this admin address (or unix:PATH) instead of reading files
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub admin: Option<String>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Prints the list.
pub(super) fn routes(args: &RoutesArgs, out: &mut dyn Write) -> io::Result<ExitCode> {
    let answer = match &args.admin {
        Some(admin) => remote(admin, args.format),
        None => offline::snapshot(&args.config).map(|snapshot| text(&snapshot::list(&snapshot), args.format)),
    };
    super::print(answer, out)
}

fn text(lines: &[RouteLine], format: Format) -> String {
    match format {
        Format::Text => lines.iter().map(|line| format!("{line}\n")).collect(),
        Format::Json => format!("{:#}", serde_json::json!({ "total": lines.len(), "offset": 0, "items": lines })),
    }
}

fn remote(admin: &str, format: Format) -> Result<String, ExitCode> {
    let query = match format {
        Format::Text => ("format", "text"),
        Format::Json => ("limit", "1000000"),
    };
    ask(admin, "/api/v1/precedence", &[query])
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use std::fs;

    #[test]
    fn routes_are_listed_in_order_and_the_unreachable_flagged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("routes.yaml");
        let text =
            "routes:\n  - { path: /, to: web }\n  - { path: \"~^/.*$\", to: web }\nclusters: { web: 127.0.0.1:9 }\n";
        fs::write(&file, text).unwrap();
        let line = format!("routes --routes {}", file.display());
        let text = printed(&line);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("* ~^/.*$ -> to web"), "{text}");
        assert!(lines[1].starts_with("* / -> to web") && lines[2].contains("unreachable"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&printed(&format!("{line} --format json"))).unwrap();
        assert_eq!((json["total"].as_u64(), json["items"][0]["path"].as_str()), (Some(2), Some("~^/.*$")));
    }
}
