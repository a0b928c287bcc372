"""Programs that a device runs, under MicroPython and under CPython alike: started by `tests.device_sdk.test_micro`."""
