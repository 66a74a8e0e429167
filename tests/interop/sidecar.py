"""Looks at deploy/kubernetes/sidecar.yaml: what a sidecar must have to be one. `sidecar.py FILE` names each fault;
`sidecar.py FILE --config` prints the configuration in its ConfigMap."""

import sys

import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    documents = {document["kind"]: document for document in yaml.safe_load_all(file) if document}

if "--config" in sys.argv:
    print(documents["ConfigMap"]["data"]["tollgate.toml"])
    sys.exit()

faults = []


def want(condition, fault):
    if not condition:
        faults.append(fault)


for kind in ("ConfigMap", "Secret", "Deployment", "Service"):
    want(kind in documents, f"no {kind}")
    want(documents.get(kind, {}).get("metadata", {}).get("name"), f"{kind} has no name")

template = documents["Deployment"]["spec"]["template"]
pod = template["spec"]
labels = template["metadata"]["labels"]
want(documents["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items(), "Deployment selects others")
want(documents["Service"]["spec"]["selector"].items() <= labels.items(), "Service selects others")

gates = [one for one in pod["initContainers"] if one["name"] == "tollgate"]
want(len(gates) == 1, "no init container tollgate")
want(len(pod["containers"]) == 1, "not one app container")
for gate in gates:
    want(gate.get("restartPolicy") == "Always", "not a native sidecar")
    ports = {port["name"]: port["containerPort"] for port in gate["ports"]}
    for probe, path in (("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        get = gate.get(probe, {}).get("httpGet", {})
        want(get.get("path") == path and get.get("port") in ports, f"{probe} is not {path} at a named port")
    want({"requests", "limits"} <= gate.get("resources", {}).keys(), "no requests or limits")
    security = gate.get("securityContext", {})
    want(security.get("runAsNonRoot") is True, "may run as root")
    want(security.get("readOnlyRootFilesystem") is True, "root filesystem is writable")
    want(security.get("allowPrivilegeEscalation") is False, "privileges may grow")
    want(security.get("capabilities", {}).get("drop") == ["ALL"], "capabilities are kept")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in gate["volumeMounts"]:
        want(mount["name"] in volumes and mount.get("readOnly"), f"mount {mount['name']} is no volume or writable")
    want(any("configMap" in volume for volume in volumes.values()), "ConfigMap is not mounted")
    want(any("secret" in volume for volume in volumes.values()), "Secret is not mounted")
    target = documents["Service"]["spec"]["ports"][0]["targetPort"]
    want(target in ports, "Service does not lead to the gate")

print("\n".join(faults))
sys.exit(bool(faults))
