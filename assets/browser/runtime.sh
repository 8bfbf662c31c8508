# Install onnxruntime-web, in the version of runtime.json, beside this file. Needs npm.
set -e
version=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' runtime.json)
mkdir -p onnxruntime
npm pack --silent --pack-destination onnxruntime "onnxruntime-web@$version"
tar -xzf "onnxruntime/onnxruntime-web-$version.tgz" -C onnxruntime --strip-components=2 \
    package/dist/ort.wasm.bundle.min.mjs package/dist/ort-wasm-simd-threaded.wasm
rm "onnxruntime/onnxruntime-web-$version.tgz"
# Compressed ahead: web/middleware.py serves the .gz file.
gzip -9 -f -k -n onnxruntime/ort-wasm-simd-threaded.wasm
