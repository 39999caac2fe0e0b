# The tests that reach compiled code, on a module built with the address and undefined-behaviour sanitizers. Called by
# `make sanitize`, in the repository's root, with .venv/bin first on the path.
set -eu
build=$PWD/build/module
cmake -G Ninja -S . -B "$build" -DPOOLWISE_OPTIMIZE=-O1 -DPOOLWISE_ONE_SET=ON -DPOOLWISE_SANITIZE=address,undefined \
  -DPython_EXECUTABLE="$PWD/.venv/bin/python"
cmake --build "$build"
rm -rf "$build/path" && mkdir -p "$build/path"
cp -r src/poolwise "$build/path/poolwise"
rm -f "$build"/path/poolwise/_native*.so
cp "$build"/_native*.so "$build/path/poolwise/"
# An editable install finds its own module before any path; this one is tested, in child processes too.
cat > "$build/path/sitecustomize.py" <<'END'
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
END

# The sanitizer must be there before Python is. Python itself and NumPy never give back what they allocate once.
# A test plants a fault of memory and wants to see the signal. A child's room of addresses is limited for its own sake; the
# sanitizer's shadow needs terabytes of them.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=0 UBSAN_OPTIONS=print_stacktrace=1 POOLWISE_CHILD_ROOM=unlimited
export PYTHONPATH="$build/path"
python -c "import poolwise._native as n; assert n.__file__.startswith('$build'), n.__file__; print(n.__file__)"
# No framework takes part: PyTorch and TensorFlow are not built for a sanitizer to watch them.
python -m pytest -q -p no:cacheprovider tests/test_native_module.py tests/test_kernels.py tests/test_operations.py \
  tests/test_properties.py tests/test_soak.py tests/test_unpool.py tests/test_onnx_nodes.py tests/test_hostile.py "$@"
