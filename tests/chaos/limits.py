"""What the machine must allow for tests with thousands of connections."""

import resource


def raise_handle_limit(wanted: int) -> None:
    """Let this process and those it starts have ``wanted`` file handles; AssertionError when it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"ulimit -Hn is {hard}; {wanted} are needed"
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
