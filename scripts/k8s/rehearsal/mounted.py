"""A Secret as a kubelet mounts it: files that are links into a folder behind ..data, which is exchanged in one step."""

import os
import shutil
import tempfile


class Mounted:
    def __init__(self, group, **values):
        self.folder, self.group, self.version = tempfile.mkdtemp(prefix="rekey-mounted-"), group, 0
        os.chmod(self.folder, 0o755)
        self.change(**values)
        for name in values:
            os.symlink(f"..data/{name}", os.path.join(self.folder, name))

    def change(self, **values):
        """Everything in it is new at once, as when the Secret was edited and the kubelet has noticed."""
        self.version += 1
        version = os.path.join(self.folder, f"..version-{self.version}")
        os.mkdir(version)
        os.chmod(version, 0o755)
        for name, value in values.items():
            path = os.path.join(version, name)
            with open(path, "w") as file:
                file.write(value)
            try:
                os.chown(path, -1, self.group)
                os.chmod(path, 0o440)
            except PermissionError:
                os.chmod(path, 0o444)
        link = os.path.join(self.folder, "..data")
        os.symlink(os.path.basename(version), f"{link}_tmp")
        os.rename(f"{link}_tmp", link)

    def clean(self):
        shutil.rmtree(self.folder)
