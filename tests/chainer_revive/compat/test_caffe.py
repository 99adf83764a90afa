import chainer.functions as F
import numpy as np
from chainer.links.caffe import CaffeFunction
from chainer.links.caffe.protobuf3 import caffe_pb2


def test_enums_and_nested_messages():
    assert caffe_pb2.TEST == 1
    assert caffe_pb2.V1LayerParameter.CONVOLUTION == 4
    assert caffe_pb2.PoolingParameter(pool="AVE").pool == caffe_pb2.PoolingParameter.AVE


def test_a_trained_network_loads(tmp_path):
    weight = np.arange(6, dtype="f").reshape(2, 3)
    net = caffe_pb2.NetParameter(name="net")
    layer = net.layer.add(name="fc", type="InnerProduct", bottom=["x"], top=["y"])
    layer.inner_product_param.num_output = 2
    layer.inner_product_param.bias_term = True
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=weight.ravel())
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, -1])
    net.layer.add(name="relu", type="ReLU", bottom=["y"], top=["z"])
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net.SerializeToString())

    x = np.array([[1, 0, -1]], "f")
    (z,) = CaffeFunction(str(path))(inputs={"x": x}, outputs=["z"])
    np.testing.assert_array_equal(z.array, F.relu(x @ weight.T + [1, -1]).array)
