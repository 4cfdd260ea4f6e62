"""The command about this installation: doctor."""

from __future__ import annotations

from fullconv.cli.app import Json, app, emit


@app.command(sort_key=11)
def doctor(*, json: Json = False) -> int:
    """Say whether this installation works, what makes it slow, and the lines that mend it. Exit
    code 1 where something is broken.

    Parameters
    ----------
    json
        Print one JSON object and nothing else.
    """
    from fullconv.cli.doctor import examine

    health = examine()
    ahead = "" if health.broken else "fullconv check DATA   # or: fullconv demo"
    emit(health.to_dict(), health.text(), json, ahead=ahead)
    return int(health.broken)
