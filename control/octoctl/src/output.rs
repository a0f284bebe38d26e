//! Printing.

use serde::Serialize;

use crate::cli::Format;
use crate::error::Failure;

/// Prints for programs.
pub(crate) fn print<T: Serialize>(value: &T, format: Format) -> Result<(), Failure> {
    let other = |error: String| Failure::Local(std::io::Error::other(error));
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| other(error.to_string()))?,
        Format::Table | Format::Json => {
            serde_json::to_string_pretty(value).map_err(|error| other(error.to_string()))?
        }
    };
    write(text.trim_end());
    write("\n");
    Ok(())
}

/// Prints rows under a heading, columns aligned. No rows are said on standard error, so that scripts see nothing.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) {
    if rows.is_empty() {
        eprintln!("none");
        return;
    }
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        write(padded.join("  ").trim_end());
        write("\n");
    };
    line(&heading.map(str::to_uppercase));
    rows.iter().for_each(line);
}

/// Writes to standard output. Who reads no further (`| head`) has seen enough: that is no failure. A full disk is.
pub(crate) fn write(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: standard output: {error}");
            std::process::exit(1);
        }
    }
}
