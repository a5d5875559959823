"""Ask a gateway as a client would: is it ready, who may see models? Arguments: base URL, wanted status."""

import json
import sys
import time
import urllib.error
import urllib.request

PATIENCE_SECONDS = 60.0


def answer(url: str) -> tuple[int, str]:
    """Status and body; status 0 and the cause while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http, from the chart
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def main(base: str, wanted: int) -> None:
    """Exit status 0 when both are as they should be."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (ready := answer(f"{base}/readyz"))[0] != 200:
        if time.monotonic() > deadline:
            sys.exit(f"{base}/readyz: {ready[0]}: {ready[1]}")
        time.sleep(1)
    status, body = answer(f"{base}/v1/models")
    if status != wanted:
        sys.exit(f"{base}/v1/models: {status} instead of {wanted}: {body}")
    if status == 200:
        print("models:", ", ".join(model["id"] for model in json.loads(body)["data"]) or "none yet")  # noqa: T201
    else:
        print("without a key the gateway lets nobody in, as it should")  # noqa: T201


main(sys.argv[1], int(sys.argv[2]))
