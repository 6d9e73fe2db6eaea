import subprocess


def test_the_old_python_is_one(python39: str):
    program = "import asyncio, sys; print(*sys.version_info[:2])"
    said = subprocess.run([python39, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "3 9\n"
