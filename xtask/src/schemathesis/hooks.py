"""What schemathesis cannot know of the daemon: which things there are, and what not to try."""

import schemathesis

KNOWN = {"sandbox": ["b", "off"], "name": ["box"], "snapshot": ["saved"]}
# These would take away what the other requests are for.
ENDS = {"remove_sandbox", "remove_image", "remove_snapshot", "stop_sandbox"}


def operation_id(context):
    return context.operation.definition.raw.get("operationId")


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Two requests of three are for something that is there."""
    if path_parameters and operation_id(context) not in ENDS:
        for name, known in KNOWN.items():
            value = path_parameters.get(name)
            if isinstance(value, str) and sum(value.encode("utf-8", "replace")) % 3:
                path_parameters[name] = known[len(value) % len(known)]
    return path_parameters


@schemathesis.hook
def filter_body(context, body):
    """A base that is a path of this host would be read in whole: `/`, of all things."""
    return '"/' not in str(body).replace("'", '"')
