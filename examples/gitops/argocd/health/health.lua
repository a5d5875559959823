-- Health of an OptimizedModel (enginewright.io/v1alpha1) for Argo CD; it serves EngineBuild and AcceleratorClass as well.
-- Conditions follow kstatus: Reconciling and Stalled are True when abnormal, Ready sums up.
local function condition(name)
  for _, item in ipairs(obj.status.conditions or {}) do
    if item.type == name then
      return item
    end
  end
  return nil
end

local function told(status, item, otherwise)
  local message = otherwise
  if item ~= nil then
    message = item.reason
    if item.message ~= nil and item.message ~= "" then
      message = item.reason .. ": " .. item.message
    end
  end
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "being deleted" }
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not seen this version yet" }
end

local ready, stalled, reconciling = condition("Ready"), condition("Stalled"), condition("Reconciling")
if stalled ~= nil and stalled.status == "True" then
  -- Somebody asked for it: no fault.
  if stalled.reason == "Paused" then
    return told("Suspended", stalled, "")
  end
  return told("Degraded", stalled, "")
end
if ready ~= nil and ready.status == "True" then
  return told("Healthy", ready, "")
end
if ready ~= nil and ready.status == "False" and not (reconciling ~= nil and reconciling.status == "True") then
  -- It serves less than was asked for, and nothing is under way that would change this.
  return told("Degraded", ready, "")
end
return told("Progressing", ready, "waiting for the operator")
