# What browsers read with, see web/browser_camera.py: two files of a package that comes by npm.
FROM node:22-slim AS runtime
WORKDIR /runtime
COPY assets/browser/runtime.json assets/browser/runtime.sh ./
RUN sh runtime.sh

FROM python:3.11-slim

# Nothing is written at run time, so the user needs no account and no home of its own.
# The bytecode of the packages is compiled once, by pip.
ENV HOME=/tmp PORT=8501 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app

# The packages change less often than the app: a layer of their own. The wheels bring their libraries: no apt.
COPY requirements.txt .
# What a store needs that the model comes from: docker build --build-arg PACKAGES=gcsfs==2026.10.1
ARG PACKAGES=
# A fifth of what they bring is never used here: tests, sources, type stubs, headers, Jupyter's part of pydeck, Arrow's
# network services and its doubles of a library, NumPy's compiler of Fortran, onnxruntime's tools and its library for C,
# two kinds of Streamlit's charts.
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.txt $PACKAGES \
    && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find . \( -type d -name tests -o -name '*.p[xy][xdi]' \) -prune -exec rm -rf {} + \
    && rm -rf pyarrow/include pyarrow/src pyarrow/*arrow_flight* pyarrow/_flight* pyarrow/libarrow_s3* \
        pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.* pydeck/nbextension ../../../share/jupyter numpy/f2py \
        onnxruntime/capi/libonnxruntime.so* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
        streamlit/static/static/js/PlotlyChart.* streamlit/static/static/js/DeckGlJsonChart.*

COPY .streamlit .streamlit
COPY assets assets
COPY --from=runtime /runtime/onnxruntime assets/browser/onnxruntime
COPY handful handful
COPY model model
COPY web web
COPY pages pages
COPY app.py .

# Hugging Face Spaces runs every container as user 1000.
USER 1000
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD python -c "import http.client, os; c = http.client.HTTPConnection('127.0.0.1:' + os.environ['PORT'], timeout=4); c.request('GET', '/api/health'); assert c.getresponse().status == 200"
# exec: the app itself gets the signal to stop.
CMD ["sh", "-c", "exec streamlit run app.py --server.address 0.0.0.0 --server.port $PORT --server.headless true"]
