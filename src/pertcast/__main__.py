"""Entry of the `pertcast` command: one message for the user's errors, a traceback only for our own."""

import errno
import sys

# What a file system refuses is no defect of ours, wherever it happens.
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def main() -> None:
    """Run the command line; exit 0 done, 2 the input is at fault, 1 a defect of ours."""
    from pertcast.cli import app
    from pertcast.errors import PertcastError

    try:
        app(prog_name="pertcast")  # also when run as `python -m pertcast`
    except PertcastError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        place = f"'{error.filename}'" if error.filename else "A file"
        fix = "Free some space, or choose another place. What was finished stays."
        print(f"{place} cannot be written: {error.strerror}. {fix}", file=sys.stderr)
        sys.exit(PertcastError.exit_code)
    except SystemExit as end:  # typer turns Ctrl-C into code 130, and a reader that went away, as `head` does, into 1
        if end.code == 130:
            print("Stopped. What was finished stays; the same command goes on from there.", file=sys.stderr)
        if isinstance(end.__context__, BrokenPipeError):
            end.code = 141
        raise


if __name__ == "__main__":
    main()
